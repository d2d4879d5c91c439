"""What is said of a run before its first step; that it is said, in callbacks/test_progress.py."""

from pathlib import Path

import pytest
import torch
from support.training import FAST, Write, train

from lightning_bnf.callbacks import RunProgress
from lightning_bnf.costs.plan.duration import assumed_rate
from lightning_bnf.costs.plan.forecast import Expected, Forecast
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import DPO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy

pytestmark = pytest.mark.forecast

EXPECTED = Expected(2.94e9, 11_500, "assumed: 66 TFLOP/s")
RUN = Forecast(1234, 50, 39, 32, 0, 61_834, "runs/mine", EXPECTED)


def test_all_of_it_is_one_line() -> None:
    first, second = RUN.lines()
    assert first == (
        "training on 1,234 rows, 50 for validation; 39 steps of 32 rows; about 62,000 tokens an epoch; about 2.9 GB a "
        "device and 3.2 hours for the steps (assumed: 66 TFLOP/s)"
    )
    assert second.startswith("everything goes to runs/mine; ")


def test_a_resumed_run_and_what_could_not_be_planned() -> None:
    unplanned = Forecast(1234, 0, 39, 32, 10, None, "runs/mine", None, "this model asks for values")
    assert unplanned.lines()[0] == (
        "training on 1,234 rows, none for validation; steps 11 to 39 of 32 rows; memory and time not planned (this "
        "model asks for values)"
    )


def test_the_rate_says_where_it_comes_from() -> None:
    rate = assumed_rate(torch.device("cpu"), torch.float32)
    assert 1e8 < rate.flops < 1e14
    assert "60% of this machine's matrix products" in rate.origin


@pytest.mark.slow
def test_planning_draws_nothing_and_changes_nothing(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    """The weights of a whole run are the same bit by bit, planned or not; with dropout, which draws numbers."""
    path, found = write_pairs(rows=25), []
    for plan in (True, False):
        torch.manual_seed(1)
        module = PreferenceModule(LoRAPolicy(tiny_folder, r=4, dropout=0.1), DPO(beta=0.1), optimization=FAST)
        data = PreferenceData(path, examples_per_step=8, max_tokens=200)
        lines: list[str] = []
        progress = RunProgress(plan=plan, bar=False, write=lines.append)
        train(tmp_path, module, data, max_epochs=1, callbacks=[progress], enable_progress_bar=True)
        assert ("GB a device" in lines[0]) == plan
        found.append(dict(module.policy.trainable()))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
