"""How many steps and operations a run takes, and what the device does in a second."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.planned_runs import a_run

from lightning_bnf.costs.plan.duration import duration, measured_rate, named_rate, steps_of, total_flops
from lightning_bnf.costs.plan.gpus import GPUS
from lightning_bnf.costs.plan.run import assess
from lightning_bnf.costs.plan.step import step_flops

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"max_epochs": 2}, 8),  # 10 rows, 3 a step: 4 steps an epoch
        ({"max_epochs": 2, "max_steps": 5}, 5),
        ({"max_epochs": 2, "max_steps": -1, "limit_train_batches": 3}, 6),
        ({"max_epochs": 1, "limit_train_batches": 0.5}, 2),
        ({"max_epochs": None, "max_steps": 7}, 7),
        ({"max_epochs": None}, 4000),
    ],
)
def test_steps_are_the_trainers(trainer: Any, expected: int) -> None:
    assert steps_of(trainer, 10, 3) == expected


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trainer.max_epochs must be > 0 without max_steps, .* got -1"):
        steps_of({"max_epochs": -1}, 10, 3)


def test_operations_are_summed_over_steps_and_passes(tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    """10 rows, 5 a step, so half of the epoch's tokens in each of 3 steps; a copy adds a forward pass to each, a cache
    one over the epoch."""
    run = a_run(tiny_folder, write_pairs(rows=10))
    found = assess(run)
    flops, work = step_flops(found.setting), found.workload
    epoch = work.tokens / work.batch_tokens
    assert total_flops(found, 3) == pytest.approx(3 * epoch / 2 * (flops.both + flops.forward))
    cached = assess(replace(run, reference="cache"))
    assert total_flops(cached, 3) == pytest.approx(3 * epoch / 2 * flops.both + epoch * flops.forward)


def test_a_roofline_has_its_parts(tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    """On two GPUs under FSDP2 the weights are gathered twice and the gradients reduced once for each micro-batch, half
    of each by a device; as the tiny model's products take next to nothing, most of the time is this. Twice as many
    links take half of it."""
    run = a_run(tiny_folder, write_pairs(rows=10), reference="cache")
    devices = replace(run.devices, kind="cuda", count=2, parallelism="fsdp2")
    found = assess(replace(run, devices=devices))
    rate = named_rate(GPUS["h100"])
    lasts = duration(found, 3, rate, cache=False)
    assert lasts is not None
    assert set(lasts.parts) == {"products", "attention", "head", "memory", "optimizer", "collectives"}
    assert lasts.seconds == pytest.approx(sum(lasts.parts.values()))
    assert lasts.flops == total_flops(found, 3, cache=False)
    state = found.cost.model_state
    sent = 3 * (2 * 4 * state.parameters + 4 * state.trained) / 2
    behind = sum(lasts.parts.values()) - lasts.parts["collectives"] - lasts.parts["optimizer"]
    assert lasts.parts["collectives"] + behind == pytest.approx(sent / GPUS["h100"].speed.links)
    assert lasts.parts["optimizer"] == pytest.approx(3 * (6 * state.gradients + 2 * state.state) / 2 / (0.85 * 3350e9))
    alone = duration(assess(run), 3, rate, cache=False)
    assert alone is not None
    assert alone.parts["collectives"] == 0.0


def test_the_rate_is_measured_in_products() -> None:
    assert 1e8 < measured_rate("cpu", torch.float32) < 1e14
