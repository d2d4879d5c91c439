"""Losses that read numbers from the data: SPO, SPPO, MADPO, PoFT."""

import math
import re

import pytest
import torch
from torch import Tensor

from lightning_bnf.losses import DPO, MADPO, SPO, SPPO, Examples, PairLoss, PoFT, StepContext
from lightning_bnf.losses.completions import Completions

CONTEXT = StepContext(pairs=1, preferred=1, dispreferred=1, preferred_tokens=1, smallest_length=1)


def at(loss: PairLoss, r_w: float, r_l: float = 0.0, **columns: tuple[float, float]) -> tuple[float, Tensor]:
    """Value and gradient of one pair of one token each with these log-ratios and columns (chosen, rejected)."""
    token = torch.tensor([r_w - 400.0, r_l - 400.0], dtype=torch.float64, requires_grad=True)
    policy = Completions(token, torch.arange(2), torch.ones(2, dtype=torch.long))
    reference = policy.replaced(torch.full((2,), -400.0, dtype=torch.float64))
    given = {name: torch.tensor(pair, dtype=torch.float64) for name, pair in columns.items()}
    examples = Examples(torch.tensor([1, -1]), torch.tensor([[0, 1]]), columns=given)
    value = loss(policy, reference, examples, CONTEXT).value.sum()
    (grad,) = torch.autograd.grad(value, token)
    return value.item(), grad


@pytest.mark.parametrize(
    ("ratio", "rewards", "z"),
    [
        (0.0, None, 0.0),
        (2.0, None, 1.0),  # gap 1: z = .5 * 2
        (2.0, (3.0, 1.0), 0.5),  # gap 2
        (2.0, (1.0, 0.9), 4.0),  # gap .1 -> the smallest, .25
    ],
)
def test_spo_by_hand(ratio: float, rewards: tuple[float, float] | None, z: float) -> None:
    """f(z) = -z e^(-z) at z = beta D / gap, with slope (z - 1) e^(-z) beta / gap."""
    columns = {} if rewards is None else {"reward": rewards}
    value, grad = at(SPO(beta=0.5, min_gap=0.25), ratio, **columns)
    assert value == pytest.approx(-z * math.exp(-z))
    scale = z / ratio if ratio else 0.5
    assert grad.tolist() == pytest.approx([(z - 1) * math.exp(-z) * scale, -(z - 1) * math.exp(-z) * scale])


def test_spo_is_lowest_where_the_margin_equals_the_gap_of_rewards() -> None:
    """The optimum of RLHF: beta D = r_w - r_l."""
    loss = SPO(beta=0.1, reward_scale=2.0)
    best, grad = at(loss, 30.0, 0.0, reward=(2.0, 0.5))  # .1 * 30 = 2 * 1.5
    assert best == pytest.approx(-math.exp(-1))
    assert grad.abs().max() == pytest.approx(0.0, abs=1e-12)
    assert all(at(loss, 30.0 + off, 0.0, reward=(2.0, 0.5))[0] > best for off in (-5, -0.1, 0.1, 5))


def test_spo_goes_on_as_a_straight_line_below_z_min() -> None:
    """At z_min = -3 value 3 e^3 and slope -4 e^3; at z = -5 it is 3 e^3 + 2 * 4 e^3 = 11 e^3 and no steeper."""
    loss = SPO(beta=1.0, z_min=-3.0)
    assert at(loss, -3.0)[0] == pytest.approx(3 * math.exp(3))
    assert at(loss, -5.0)[0] == pytest.approx(11 * math.exp(3))
    below, above = at(loss, -3.0 - 1e-9)[1], at(loss, -3.0 + 1e-9)[1]
    assert below.tolist() == pytest.approx(above.tolist(), rel=1e-6)
    assert at(loss, -300.0)[1].tolist() == pytest.approx([-4 * math.exp(3), 4 * math.exp(3)])


def test_sppo_by_hand() -> None:
    """beta .5: targets (P - .5) / .5. Without a column P = 1 and 0: targets +1 and -1; at R = (1, -1) the loss is 0."""
    assert at(SPPO(beta=0.5), 1.0, -1.0)[0] == 0.0
    assert at(SPPO(beta=0.5), 2.0, 0.0)[0] == pytest.approx(0.5 * (1 + 1))
    value, grad = at(SPPO(beta=0.5), 2.0, 0.0, win_probability=(0.75, 0.5))  # targets .5 and 0
    assert value == pytest.approx(0.5 * 1.5**2)
    assert grad.tolist() == pytest.approx([1.5, 0.0])


def test_madpo_by_hand() -> None:
    """h = 2 = tau, so far = 1 and c = .5 + (2 - .5) / (1 + 1 / .5) = 1: weight 1. h = -3 < -tau: 1 by definition."""
    loss = MADPO(beta=0.5, threshold=2.0)
    dpo = at(DPO(beta=0.5), 2.0)[0]
    assert at(loss, 2.0, reward=(3.0, 1.0))[0] == pytest.approx(dpo)
    assert at(loss, 2.0, reward=(0.0, 3.0))[0] == pytest.approx(dpo)
    # h = 1: far = e^-1, c = .5 + 1.5 / (1 + 2 / e), w = s(c) / s(1)
    c = 0.5 + 1.5 / (1 + 2 / math.e)
    weight = (1 + math.exp(-1)) / (1 + math.exp(-c))
    assert at(loss, 2.0, reward=(1.0, 0.0))[0] == pytest.approx(weight * dpo)


def test_madpo_weighs_small_gaps_more_and_large_gaps_less() -> None:
    loss = MADPO()
    gaps = torch.tensor([0.5, 2.0, 6.9, 9.0, 1e4, -1e4], dtype=torch.float64)
    weight = loss.weight(gaps)
    assert weight[0] > 1
    assert weight[2] == pytest.approx(1.0)
    assert weight[3] < 1
    assert weight.isfinite().all()


def test_poft_by_hand() -> None:
    """A = (-1 - 2) / 2 = -1.5 against -1: -log s(-.5); the dispreferred completion is left out."""
    token = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64, requires_grad=True)
    policy = Completions(token, torch.tensor([0, 0, 1]), torch.tensor([2, 1]))
    columns = {"baseline_mean_logps": torch.tensor([-1.0, torch.nan], dtype=torch.float64)}
    value = PoFT()(policy, None, Examples(torch.tensor([1, -1]), columns=columns), CONTEXT).value
    assert value.tolist() == pytest.approx([math.log1p(math.exp(0.5))])
    (grad,) = torch.autograd.grad(value.sum(), token)
    slope = 1 / (1 + math.exp(-0.5))
    assert grad.tolist() == pytest.approx([-slope / 2, -slope / 2, 0.0])


def test_bad_arguments_are_refused() -> None:
    for make, message in (
        (lambda: SPO(z_min=1.0), "z_min must be < 1, got 1.0"),
        (lambda: SPO(min_gap=0.0), "min_gap must be > 0, got 0.0"),
        (lambda: MADPO(max_factor=1.0), "max_factor must be > 1, got 1.0"),
        (lambda: MADPO(min_factor=1.0), "min_factor must be in [0, 1), got 1.0"),
        (lambda: SPPO(beta=0.0), "beta must be > 0, got 0.0"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            make()
