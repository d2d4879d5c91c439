"""Segment reductions and the stable logarithms."""

import math

import pytest
import torch

from lightning_bnf.losses.completions import Completions, log1mexp, log_odds


def test_sums_and_means_by_hand() -> None:
    completions = Completions(torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([0, 1, 1]), torch.tensor([1, 2]))
    assert completions.sum().tolist() == [-1.0, -5.0]
    assert completions.mean().tolist() == [-1.0, -2.5]
    assert completions.per_token(torch.tensor([10, 20])).tolist() == [10, 20, 20]
    assert completions.replaced(torch.ones(3)).sum().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("x", [-1e-12, -1e-6, -0.1, -0.6931, -0.6932, -1.0, -30.0])
def test_log1mexp_is_exact_on_both_sides(x: float) -> None:
    expected = math.log(-math.expm1(x)) if x > -1 else math.log1p(-math.exp(x))
    assert log1mexp(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-14)


def test_log1mexp_has_finite_gradients_and_is_minus_infinity_at_zero() -> None:
    x = torch.tensor([-300.0, -1.0, -1e-7], requires_grad=True)
    log1mexp(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert log1mexp(torch.tensor(0.0)).item() == -math.inf


def test_log_odds_by_hand() -> None:
    logp = torch.tensor([0.5, 0.8, 0.2], dtype=torch.float64).log()
    assert log_odds(logp).tolist() == pytest.approx([0.0, math.log(4), -math.log(4)])
    assert log_odds(torch.tensor(1e-7)).item() == math.inf
