"""NPO and SimNPO on hand-made numbers, and DFT's weights."""

import math

import pytest
import torch

from lightning_bnf.losses import DFT, NPO, Examples, SimNPO, StepContext
from lightning_bnf.losses.completions import Completions

# Preferred: tokens (-1, -1); dispreferred: tokens (-2, -4).
ROW, LENGTH = torch.tensor([0, 0, 1, 1]), torch.tensor([2, 2])
EXAMPLES = Examples(torch.tensor([1, -1]))
CONTEXT = StepContext(pairs=0, preferred=1, dispreferred=1, preferred_tokens=2, smallest_length=2)


def policy(dtype: torch.dtype = torch.float64) -> Completions:
    return Completions(torch.tensor([-1.0, -1.0, -2.0, -4.0], dtype=dtype, requires_grad=True), ROW, LENGTH)


def reference(ratio: float) -> Completions:
    """The reference under which the dispreferred completion has this summed log-ratio."""
    return policy().replaced(torch.tensor([-1.0, -1.0, -2.0, -4.0 - ratio], dtype=torch.float64))


def ln_s(x: float) -> float:
    return -math.log1p(math.exp(-x))


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.0])
def test_npo_by_hand(ratio: float) -> None:
    """Preferred: .5 * 1 nat; dispreferred: -(2 / .5) ln s(-.5 R)."""
    value = NPO(beta=0.5, retain_weight=0.5)(policy(), reference(ratio), EXAMPLES, CONTEXT).value
    assert value.tolist() == pytest.approx([0.5, -4 * ln_s(-0.5 * ratio)])


def test_simnpo_by_hand() -> None:
    """A_l = -3, beta = .5, gamma = 1: -(2 / .5) ln s(.5 (3 - 1))."""
    value = SimNPO(beta=0.5, gamma=1.0, retain_weight=2.0)(policy(), None, EXAMPLES, CONTEXT).value
    assert value.tolist() == pytest.approx([2.0, -4 * ln_s(1.0)])


def test_npo_becomes_gradient_ascent_as_beta_vanishes() -> None:
    p = policy()
    value = NPO(beta=1e-6)(p, reference(1.0), EXAMPLES, CONTEXT).value
    (grad,) = torch.autograd.grad(value[1], p.token_logps)
    assert grad.tolist() == pytest.approx([0, 0, 1, 1], abs=1e-5)


def test_npo_pushes_less_the_further_a_completion_has_fallen() -> None:
    pushes = []
    for ratio in (0.0, -5.0, -50.0):
        p = policy()
        (grad,) = torch.autograd.grad(NPO(beta=0.5)(p, reference(ratio), EXAMPLES, CONTEXT).value[1], p.token_logps)
        pushes.append(grad[2].item())
    assert pushes[0] == pytest.approx(1.0)
    assert pushes[0] > pushes[1] > pushes[2] >= 0


def test_dft_weighs_each_token_by_its_own_probability() -> None:
    """Two tokens of probability 1/e: each -(1/e) * (-1), their mean over the step's 2 tokens of 1 example."""
    p = policy()
    value = DFT()(p, None, EXAMPLES, CONTEXT).value
    assert value.tolist() == pytest.approx([math.exp(-1) * (1 + 1) / 2])
    (grad,) = torch.autograd.grad(value.sum(), p.token_logps)
    assert grad.tolist() == pytest.approx([-math.exp(-1) / 2, -math.exp(-1) / 2, 0, 0])


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"beta must be > 0, got 0\.0"):
        NPO(beta=0.0)
    with pytest.raises(ValueError, match=r"retain_weight must be >= 0, got -1\.0"):
        SimNPO(retain_weight=-1.0)
