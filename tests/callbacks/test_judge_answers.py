"""A judge in the loop: what it logs, when it stops, and both orders of a language model that judges."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training import FAST, train

from lightning_bnf.callbacks import JudgeAnswers
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import SFT
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.preparation.scoring import Candidates, Scorer

pytestmark = pytest.mark.slow


class Same(Scorer):
    """Prefers the second answer, which is that of the start, by `lead` where they differ."""

    def __init__(self, lead: float):
        self.lead = lead

    def score(self, groups: Sequence[Candidates], work_file: Path) -> list[list[float | None]]:
        return [[0.0, self.lead if one.completions[0] != one.completions[1] else 0.0] for one in groups]


def run(tmp_path: Path, folder: str, data: str, judge: JudgeAnswers, policy: Any = None, **more: Any) -> Any:
    torch.manual_seed(1)
    module = PreferenceModule(policy or LoRAPolicy(folder), SFT(), optimization=FAST)
    held = PreferenceData(data, data, examples_per_step=5)
    return train(tmp_path, module, held, callbacks=[judge], **more)


@pytest.mark.parametrize("adapters", [True, False])
def test_answers_are_compared_with_those_of_the_start(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], adapters: bool
) -> None:
    judge = JudgeAnswers(Same(-1.0), prompts=4, every_n_steps=2, max_new_tokens=6)
    policy = LoRAPolicy(tiny_folder) if adapters else FullPolicy(tiny_folder)
    trainer = run(tmp_path, tiny_folder, write_pairs(rows=10), judge, policy, max_epochs=3)
    record = json.loads((tmp_path / "judged.json").read_text())
    assert [found["step"] for found in record["measured"]] == [2, 4, 6]
    assert len(record["answers"]) == 4
    changed = [one for one in record["answers"] if one["now"] != one["before"]]
    assert changed
    assert all(one["won"] == (1 if one in changed else 0.5) for one in record["answers"])
    rate = sum(one["won"] for one in record["answers"]) / 4
    assert record["measured"][-1]["rate"]["value"] == rate
    assert float(trainer.callback_metrics["val/judged_win_rate"]) == pytest.approx(rate)
    assert trainer.callback_metrics["val/judged_win_rate_low"] <= rate


def test_a_run_whose_answers_become_worse_is_stopped_where_that_is_asked_for(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]
) -> None:
    judge = JudgeAnswers(Same(1.0), prompts=8, every_n_steps=2, max_new_tokens=6, stop=True)
    trainer = run(tmp_path / "worse", tiny_folder, write_pairs(rows=10), judge, max_epochs=2)
    assert trainer.global_step == 2
    tied = JudgeAnswers(Same(1.0), prompts=4, every_n_steps=2, max_new_tokens=6, stop=True, tie_margin=1.0)
    assert run(tmp_path / "tied", tiny_folder, write_pairs(rows=10), tied, max_epochs=2).global_step == 4


def test_a_language_model_judges_in_both_orders(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that always takes the first with 0.9, and the new answer with 0.95: the new one wins."""
    asked = []

    def probability(self: Any, messages: Any) -> float:
        asked.append(messages[-1]["content"])
        return 0.95 if len(asked) % 2 else 0.9

    monkeypatch.setattr("lightning_bnf.callbacks.judge_answers.TokenJudge.probability", probability)
    judge = JudgeAnswers(source=tiny_folder, prompts=2, every_n_steps=4, max_new_tokens=6)
    run(tmp_path, tiny_folder, write_pairs(rows=10), judge, max_epochs=2)
    record = json.loads((tmp_path / "judged.json").read_text())
    assert {one["won"] for one in record["answers"] if one["now"] != one["before"]} == {1}
    assert len(asked) == 2 * sum(one["now"] != one["before"] for one in record["answers"])
    new, old = (record["answers"][0][name] for name in ("now", "before"))
    assert f"Answer A:\n{new}" in asked[0]
    assert f"Answer A:\n{old}" in asked[1]


def test_refusals(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="scorer, source: one of them must be given, got neither"):
        JudgeAnswers()
    module = PreferenceModule(LoRAPolicy(tiny_folder), SFT(), optimization=FAST)
    with pytest.raises(ValueError, match="callback JudgeAnswers must be given validation data"):
        train(tmp_path, module, PreferenceData(write_pairs(rows=10)), callbacks=[JudgeAnswers(Same(0.0))])


def test_a_resumed_run_compares_with_the_first_start() -> None:
    judge = JudgeAnswers(Same(0.0))
    held = {"before": [{"text": "old", "length": 1, "finished": True}], "measured": [{"step": 2}]}
    judge.load_state_dict(held)
    assert judge.state_dict() == held
