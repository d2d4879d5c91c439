"""What a process takes beside the tensors of a step."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from support.planned_runs import COST, a_run

from lightning_bnf.costs.plan.estimate import Devices
from lightning_bnf.costs.plan.overhead import CUDA_CONTEXT, FRAGMENTATION, expected_bytes, fragmentation_of, overhead_of
from lightning_bnf.costs.plan.run import assess
from lightning_bnf.costs.plan.step import Phase

pytestmark = pytest.mark.slow


def test_holes_are_a_share_of_what_comes_and_goes(tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    found = assess(a_run(tiny_folder, write_pairs(rows=10)))
    phases = (Phase("forward pass", 0, 0, 300), Phase("backward pass", 0, 0, 1000), Phase("optimizer's step", 0, 0, 20))
    light = replace(found, cost=replace(COST, phases=phases))
    assert fragmentation_of(light).bytes == FRAGMENTATION * 1000
    assert fragmentation_of(replace(light, run=replace(light.run, devices=Devices("cuda")))).bytes == 0


def test_the_process_itself_is_counted() -> None:
    assert 5e7 < overhead_of("cpu").bytes < 1e10
    assert overhead_of("cuda").bytes > 0


def test_a_loaded_run_takes_what_the_process_holds_and_what_the_step_brings(
    tiny_folder: str, write_pairs: Callable[..., str]
) -> None:
    """On a GPU the step's tensors and CUDA's own; here more than this process has already."""
    found = assess(a_run(tiny_folder, write_pairs(rows=10)))
    on_gpu = replace(found, run=replace(found.run, devices=Devices("cuda")))
    assert expected_bytes(on_gpu) == found.estimate.total + CUDA_CONTEXT
    assert expected_bytes(found) > found.estimate.total - found.cost.model_state.standing + 5e7
