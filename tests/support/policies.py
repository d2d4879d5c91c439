"""Policies loaded, moved from their start, and saved."""

from pathlib import Path

import torch

from lightning_bnf.export.folders import whole_weights
from lightning_bnf.policies import LoRAPolicy, Policy


def lora(folder: str, **arguments: object) -> LoRAPolicy:
    policy = LoRAPolicy(folder, **arguments)  # type: ignore[arg-type]
    policy.load()
    return policy


def save(policy: Policy, folder: Path) -> None:
    policy.save(str(folder), whole_weights(policy), "5GB")


def moved(policy: Policy) -> Policy:
    torch.manual_seed(4)
    for parameter in policy.trainable().values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return policy
