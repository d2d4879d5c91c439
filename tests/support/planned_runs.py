"""A run to plan, and a step's cost in small numbers."""

from typing import Any

from lightning_bnf.costs.plan.command import run_of
from lightning_bnf.costs.plan.model_state import ModelState
from lightning_bnf.costs.plan.question import Question
from lightning_bnf.costs.plan.run import Run
from lightning_bnf.costs.plan.step import Phase, StepCost
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import DPO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy

STATE = ModelState({"float32": 100}, 20, 60, 40, 80, gathered=7, parameters=30, trained=5)
COST = StepCost(STATE, (Phase("forward pass", 0, 80, 50), Phase("check before step 1", 0, 0, 10)), saved=30)


def a_run(source: str, train: str | None = None, **changes: Any) -> Run:
    module = PreferenceModule(FullPolicy(source), changes.pop("loss", DPO(beta=0.1)), changes.pop("reference", "auto"))
    data = PreferenceData(train, examples_per_step=5, max_tokens=changes.pop("max_tokens", 4096))
    return run_of(module, data, {"accelerator": "cpu", "devices": 1} | changes, Question())
