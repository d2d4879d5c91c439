"""What is asked of plan, and the devices that it comes to."""

from dataclasses import replace
from typing import Any

import pytest

from lightning_bnf.costs.plan.estimate import Devices
from lightning_bnf.costs.plan.question import Question, devices_of


@pytest.mark.parametrize(
    ("trainer", "question", "expected"),
    [
        ({"accelerator": "cpu", "devices": 1}, Question(gpus=None), Devices("cpu")),
        ({"accelerator": "cpu", "devices": 1}, Question(gpus=2), Devices("cuda", 2, "ddp")),
        (
            {"accelerator": "cuda", "devices": 4, "num_nodes": 2, "strategy": "fsdp2"},
            Question(),
            Devices("cuda", 8, "fsdp2"),
        ),
        ({"accelerator": "auto"}, Question(gpu_memory=24), Devices("cuda", 1, "one device", 24e9)),
        ({"accelerator": "gpu", "devices": [0, 1], "strategy": "ddp"}, Question(), Devices("cuda", 2, "ddp")),
    ],
)
def test_devices_are_those_asked_for_else_the_trainers(trainer: Any, question: Question, expected: Devices) -> None:
    found = devices_of(trainer, question)
    assert replace(found, memory=expected.memory) == expected
    assert question.gpu_memory is None or found.memory == expected.memory


def test_other_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match="strategy must be auto, ddp or fsdp2, got deepspeed"):
        devices_of({"strategy": "deepspeed"}, Question(gpus=2))


@pytest.mark.parametrize("name", ["gpus", "gpu_memory", "flops", "rows", "tokens_per_row"])
def test_numbers_are_above_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >=? [01], got 0"):
        Question(**{name: 0})


def test_a_named_gpu_is_one_unless_more_are_asked_for() -> None:
    trainer = {"accelerator": "auto", "devices": "auto"}
    assert devices_of(trainer, Question(gpu="h100")) == Devices("cuda", 1, "one device", 80e9)
    assert devices_of(trainer, Question(gpu="h100", gpus=8)) == Devices("cuda", 8, "ddp", 80e9)
    assert devices_of(trainer, Question(gpu="h100", gpu_memory=40)).memory == 40e9
    assert devices_of(trainer, Question(gpus=2)).memory is None, "of a GPU that nobody named nothing is known"


def test_this_machine_has_the_memory_that_is_free_and_that_is_taken_already() -> None:
    memory = devices_of({"accelerator": "cpu", "devices": 1}, Question()).memory
    assert memory is not None
    assert memory > 5e7
