"""Sizes of an optimizer's state by hand, whatever its class, and beside what it really keeps."""

import pytest
import torch
from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit
from torch import Tensor

from lightning_bnf.policies import FullPolicy
from lightning_bnf.training.fake_step import FakeOptimizer
from lightning_bnf.training.optimization import Optimization, OptimizerFactory, build_optimizer, parameter_groups
from lightning_bnf.training.optimizers import Muon


@pytest.fixture
def policy(tiny_folder: str) -> FullPolicy:
    made = FullPolicy(tiny_folder)
    made.load()
    return made


def kept(optimizer: torch.optim.Optimizer) -> int:
    values = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum({value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in values}.values())


@pytest.mark.parametrize(
    "factory",
    [
        None,
        AdamW8bit,
        PagedAdamW8bit,
        torch.optim.Adafactor,
        torch.optim.NAdam,
        torch.optim.RAdam,
        torch.optim.ASGD,
        Muon,
        lambda params, lr: torch.optim.SGD(params, lr, momentum=0.9),
    ],
)
def test_the_state_is_as_large_as_that_of_a_real_step(policy: FullPolicy, factory: OptimizerFactory | None) -> None:
    found = FakeOptimizer(policy, Optimization(1e-6), factory).state_bytes
    optimizer = build_optimizer(parameter_groups(policy), Optimization(1e-6), factory)
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert found == kept(optimizer)


def test_sizes_by_hand(policy: FullPolicy) -> None:
    """AdamW: two moments of 4 bytes and a count of steps for each tensor. Muon: one for hidden matrices instead."""
    count, tensors = sum(p.numel() for p in policy.parameters()), len(list(policy.parameters()))
    assert FakeOptimizer(policy, Optimization(1e-6)).state_bytes == 8 * count + 4 * tensors
    (hidden, *_) = parameter_groups(policy)
    saved = sum(4 * p.numel() + 4 for p in hidden["params"])
    assert FakeOptimizer(policy, Optimization(1e-6), Muon).state_bytes == 8 * count + 4 * tensors - saved


def test_nothing_is_changed_and_no_memory_is_taken(policy: FullPolicy) -> None:
    before = {name: value.clone() for name, value in policy.trainable().items()}
    optimizer = FakeOptimizer(policy, Optimization(1e-6))
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in policy.trainable().items())
    assert all(parameter.grad is None for parameter in policy.parameters())
    assert all(type(value).__name__ == "FakeTensor" for value in optimizer.state)
