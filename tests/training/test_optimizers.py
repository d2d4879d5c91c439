"""Muon, whose halves are torch's own, and masters: each is one object that is saved and restored."""

import io
from typing import Any

import pytest
import torch
from torch import nn

from lightning_bnf.training import optimizers
from lightning_bnf.training.optimizers import MasterWeights, Muon, name_of, trained_part


def tensors() -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.randn(20, 6)), nn.Parameter(torch.randn(6))


def groups(matrix: nn.Parameter, embedding: nn.Parameter, vector: nn.Parameter) -> list[dict[str, object]]:
    return [
        {"params": [matrix], "hidden": True},
        {"params": [embedding], "hidden": False},
        {"params": [vector], "hidden": False, "weight_decay": 0.0},
    ]


def step(optimizer: torch.optim.Optimizer, *parameters: nn.Parameter, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    optimizer.step()


def test_each_half_is_torchs_own() -> None:
    matrix, embedding, vector = ours = tensors()
    theirs = tensors()
    optimizer = Muon(groups(*ours), lr=0.01, weight_decay=0.1)
    muon = torch.optim.Muon([theirs[0]], 0.01, 0.1, eps=1e-8, adjust_lr_fn="match_rms_adamw")
    parts = [{"params": [theirs[1]], "weight_decay": 0.1}, {"params": [theirs[2]], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(parts, 0.01, (0.9, 0.95), fused=True)
    for seed in range(3):
        step(optimizer, *ours, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for parameter in theirs:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        muon.step()
        adamw.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))
    assert set(optimizer.state[matrix]) == {"momentum_buffer"}
    assert set(optimizer.state[embedding]) == set(optimizer.state[vector]) == {"step", "exp_avg", "exp_avg_sq"}


def test_a_schedule_reaches_both_halves() -> None:
    ours = tensors()
    before = [parameter.detach().clone() for parameter in ours]
    optimizer = Muon(groups(*ours), lr=0.01)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.0)
    step(optimizer, *ours, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(ours, before))


def test_three_steps_and_three_more_from_what_was_saved_are_six() -> None:
    whole, parts = tensors(), tensors()
    optimizer, first = Muon(groups(*whole), lr=0.01), Muon(groups(*parts), lr=0.01)
    for seed in range(6):
        step(optimizer, *whole, seed=seed)
    for seed in range(3):
        step(first, *parts, seed=seed)
    second = Muon(groups(*parts), lr=0.5)
    second.load_state_dict(first.state_dict())
    for seed in range(3, 6):
        step(second, *parts, seed=seed)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts))


def test_one_kind_of_tensors_is_enough() -> None:
    """Adapters are matrices alone."""
    matrix, _, vector = tensors()
    for parameter, hidden in ((matrix, True), (vector, False)):
        before = parameter.detach().clone()
        step(Muon([{"params": [parameter], "hidden": hidden}], lr=0.01), parameter, seed=0)
        assert not torch.equal(parameter, before)


def halves() -> tuple[nn.Parameter, ...]:
    return tuple(nn.Parameter(tensor.detach().bfloat16()) for tensor in tensors())


def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, 1e-6, fused=True)


@pytest.mark.parametrize("build", [adamw, lambda groups: Muon(groups, lr=1e-6)])
def test_masters_move_as_float32_weights_do_and_the_weights_are_their_rounding(build: Any) -> None:
    """Twenty steps of a millionth each: by themselves bfloat16 weights of 0.1 to 1 would stay where they are."""
    ours = halves()
    theirs = tuple(nn.Parameter(weight.detach().float()) for weight in ours)
    optimizer, right = MasterWeights(groups(*ours), build), build(groups(*theirs))
    for seed in range(20):
        step(optimizer, *ours, seed=seed)
        for weight, wide in zip(ours, theirs):
            assert weight.grad is not None
            wide.grad = weight.grad.float()
        right.step()
    for weight, wide in zip(ours, theirs):
        torch.testing.assert_close(trained_part(optimizer, weight), wide, rtol=0, atol=0)
        assert torch.equal(weight, wide.bfloat16())
        assert torch.equal(optimizer.state[weight]["master"], wide)
    assert name_of(optimizer) == f"{type(right).__name__} with float32 masters"


def test_masters_are_saved_and_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a file, whose tensors torch would give the weights' own type; in pieces of one tensor as in one."""
    whole, parts = halves(), halves()
    optimizer, first = (MasterWeights(groups(*some), adamw) for some in (whole, parts))
    for seed in range(6):
        step(optimizer, *whole, seed=seed)
    monkeypatch.setattr(optimizers, "PIECE", 1)
    for seed in range(3):
        step(first, *parts, seed=seed)
    held = io.BytesIO()
    torch.save(first.state_dict(), held)
    held.seek(0)
    again = tuple(nn.Parameter(weight.detach().clone()) for weight in parts)
    second = MasterWeights(groups(*again), adamw)
    second.load_state_dict(torch.load(held, weights_only=True))
    kept = [value for one in second.state.values() for value in one.values()]
    assert all(value.dtype == torch.float32 for value in kept)
    for seed in range(3, 6):
        step(second, *again, seed=seed)
    for one, other in zip(whole, again):
        torch.testing.assert_close(trained_part(second, other), trained_part(optimizer, one), rtol=0, atol=0)


def test_weights_that_are_loaded_before_the_first_step_are_what_masters_begin_with() -> None:
    ours = halves()
    optimizer = MasterWeights(groups(*ours), lambda some: torch.optim.SGD(some, 0.5))
    with torch.no_grad():
        for weight in ours:
            weight.fill_(2.0)
            weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert {float(trained_part(optimizer, weight).detach().mean()) for weight in ours} == {1.5}
