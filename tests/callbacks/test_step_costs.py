"""Seconds, tokens and memory of steps, also over a resumption."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_bnf.callbacks.step_costs import StepCosts
from lightning_bnf.pages.scores import write_steps
from lightning_bnf.runtime import memory

CPU = torch.device("cpu")


def step(*tokens: int) -> SimpleNamespace:
    return SimpleNamespace(micro_batches=[SimpleNamespace(target=torch.zeros(count)) for count in tokens])


def test_a_step_is_all_its_micro_batches(tmp_path: Path) -> None:
    costs = StepCosts()
    costs.begin(tmp_path, 0)
    for number in (1, 2):
        costs.start()
        costs.end(number, step(3, 4 * number), CPU)
    found = costs.gathered()
    assert (found["step"], found["tokens"]) == ([1, 2], [7, 11])
    assert all(seconds >= 0 for seconds in found["seconds"])


def test_a_resumed_run_goes_on_from_what_was_measured(tmp_path: Path) -> None:
    write_steps(tmp_path, {"step": [1, 2, 3], "seconds": [1, 1, 1], "tokens": [5, 6, 7], "gigabytes": [2, 2, 2]})
    costs = StepCosts()
    costs.begin(tmp_path, 2)  # the third step is made again
    costs.start()
    costs.end(3, step(9), CPU)
    found = costs.gathered()
    assert (found["step"], found["tokens"]) == ([1, 2, 3], [5, 6, 9])
    costs.begin(tmp_path, 0)  # a new run in the same folder
    assert costs.gathered()["step"] == [3]


def test_where_memory_is_not_told_the_column_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "nothing")
    costs = StepCosts()
    costs.begin(tmp_path, 0)
    costs.start()
    costs.end(1, step(1), CPU)
    assert costs.gathered()["gigabytes"] == []
