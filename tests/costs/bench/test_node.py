"""Several devices against one: what is made of what the steps told, and a rehearsal on two processes."""

import json
import os
from pathlib import Path

import pytest
import torch
from support.turns import here

from lightning_bnf.costs.bench import node
from lightning_bnf.costs.bench.node import Fit, _numbers
from lightning_bnf.costs.bench.run import bench
from lightning_bnf.costs.bench.steps import Workload

EVERY = os.environ.get("BENCH") == "all"


def told(folder: Path, name: str, seconds: float, gradient: list[float], budgets: list[int]) -> Fit:
    fit = Fit(name, "toy", 4, "ddp", "cpu", "x", str(folder), Workload(""), baseline="one")
    line = {"seconds": seconds, "loss": 0.5, "tokens": 1000, "budgets": budgets}
    slow = {**line, "seconds": 9.0}
    fit.told.write_text("".join(json.dumps(one) + "\n" for one in (slow, slow, line, line)))
    torch.save(torch.tensor(gradient), fit.told.with_suffix(".pt"))
    return fit


def test_efficiency_and_gradients_are_against_one_device(tmp_path: Path) -> None:
    """0.5 s instead of 1.6 s on four devices: 3.2 times as fast, which is 0.8 of 4. Steps that warm up are left out.
    The gradients (3, 4) and (3, 4.5) differ by a tenth of the length of the first."""
    told(tmp_path, "one", 1.6, [3.0, 4.0], [700])
    found = _numbers(told(tmp_path, "ddp 4", 0.5, [3.0, 4.5], [700]))
    assert found == {
        "step_seconds": 0.5, "tokens_a_second": 2000.0, "budget": 700, "last_loss": 0.5,
        "efficiency": pytest.approx(0.8), "gradient_off": pytest.approx(0.1),
    }  # fmt: skip


def test_ranks_with_other_budgets_are_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"the ranks cut micro-batches by other budgets: \[640, 700\]"):
        _numbers(told(tmp_path, "ddp 4", 0.5, [1.0], [640, 700]))


@pytest.mark.slow
def test_two_processes_agree_on_a_budget(tiny_folder: str, tmp_path: Path) -> None:
    """BENCH=all takes the whole command: one process, two under DDP and FSDP2, and two that are killed and go on."""
    if EVERY:
        bench(["node"], source=tiny_folder, threads=1, rehearse=True, markdown_file=tmp_path / "node.md")
        return
    ((*_, auto, killed),) = node.variants(tiny_folder, str(tmp_path), rehearse=True)
    assert killed.arguments["fit"].baseline == "fsdp2 2"
    assert (auto.name, auto.once) == ("fsdp2 2 auto", True)
    here([auto], 1)
    assert not auto.error, auto.error
    assert auto.more["budget"][0] >= 256
    assert auto.more["tokens_a_second"][0] > 0
