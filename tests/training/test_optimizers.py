"""Muon: its halves are torch's own, in one object that is saved and restored."""

import torch
from torch import nn

from lightning_bnf.training.optimizers import Muon


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
        parameter.grad = torch.randn(parameter.shape, generator=generator)
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
