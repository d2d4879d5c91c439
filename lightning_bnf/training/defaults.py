"""What a run takes where its user says nothing: by device, policy and loss, each with its reason in a few words.

The learning rates and where they come from are the table of docs/policies.md.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from lightning_bnf.losses.base import Loss
from lightning_bnf.policies.base import Policy
from lightning_bnf.training.optimization import Optimization


class Default(NamedTuple):
    """A value, and why it is this one."""

    value: Any
    reason: str


TRAINER = {
    "max_epochs": Default(1, "preference losses overfit soon: their papers train for one epoch"),
    "val_check_interval": Default(0.25, "four validations an epoch, the last at its end"),
    "log_every_n_steps": Default(1, "a step takes seconds, writing it down none"),
}
"""Settings of the Trainer that depend on nothing."""

DATA = {
    "examples_per_step": Default("auto", "4 to 128 rows, by how many there are: about 32 steps an epoch"),
    "max_tokens": Default("auto", "the largest micro-batch that fits, by dry steps on the longest rows"),
    "validation": Default("auto", "5 % of the training rows, at least 16 and at most a fifth; none of under 40"),
}
"""Settings of the data that depend on nothing."""


def device_type(accelerator: str) -> str:
    """cpu, cuda or mps: what the Trainer would train on with this `accelerator`, on this machine."""
    if accelerator in ("auto", "gpu"):
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return accelerator


def computes_in_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 are in the device's hardware; a GPU of another machine is taken to have them."""
    here = torch.cuda.is_available()
    return device == "cuda" and (not here or torch.cuda.is_bf16_supported(including_emulation=False))


def precision(device: str) -> Default:
    """The Trainer's precision."""
    if computes_in_bfloat16(device):
        return Default("bf16-mixed", "this GPU computes in bfloat16; what is trained stays in float32")
    if device == "cuda":
        return Default("32-true", "this GPU has no products in bfloat16")
    return Default("32-true", f"bfloat16 is slower than float32 on {device}")


def base_dtype(policy: type[Policy], device: str) -> Default | None:
    """The type of a frozen base's weights; None where all weights are trained, which stay as their class has them."""
    if not policy.adapters:
        return None
    if computes_in_bfloat16(device):
        return Default("bfloat16", "the base is frozen, so half the memory loses nothing that is trained")
    return Default("float32", f"exact, and bfloat16 is no faster on {device if device != 'cuda' else 'this GPU'}")


def learning_rate(policy: type[Policy], loss: type[Loss]) -> Default:
    """The peak learning rate, as the loss declares it for all weights and for adapters."""
    value = loss.adapter_learning_rate if policy.adapters else loss.learning_rate
    trained = "adapters" if policy.adapters else "all weights"
    return Default(value, f"for {trained} with {loss.__name__}; a small model or a short run may take more")


def with_learning_rate(optimization: Optimization, policy: Policy, loss: Loss) -> Optimization:
    """The same with the default learning rate where it has none."""
    if optimization.learning_rate is not None:
        return optimization
    return replace(optimization, learning_rate=learning_rate(type(policy), type(loss)).value)
