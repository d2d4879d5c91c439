"""DPO on hand-made numbers."""

import math
import re

import pytest
import torch
from torch import Tensor

from lightning_bnf.losses import DPO, Examples, StepContext
from lightning_bnf.losses.completions import Completions

CONTEXT = StepContext(pairs=1, preferred=1, dispreferred=1, preferred_tokens=2, smallest_length=1)
PAIR = Examples(torch.tensor([1, -1]), torch.tensor([[0, 1]]))


def pair(chosen: list[float], rejected: list[float]) -> Completions:
    token = torch.tensor(chosen + rejected, dtype=torch.float64, requires_grad=True)
    row = torch.tensor([0] * len(chosen) + [1] * len(rejected))
    return Completions(token, row, torch.tensor([len(chosen), len(rejected)]))


def loss(policy: Completions, reference: Completions, **arguments: float) -> Tensor:
    return DPO(**arguments)(policy, reference, PAIR, CONTEXT).value


@pytest.mark.parametrize("margin", [0.0, 1.0, 2.0])
def test_value_by_hand(margin: float) -> None:
    """Sums count, not means: chosen (-1, -1) against reference (-1, -1 - margin) gives R_w = margin; R_l = 0.
    L = -ln s(.5 * margin): ln 2 at 0."""
    policy, reference = pair([-1, -1], [-3]), pair([-1, -1 - margin], [-3])
    assert loss(policy, reference, beta=0.5).item() == pytest.approx(math.log1p(math.exp(-0.5 * margin)))


def test_label_smoothing_by_hand() -> None:
    """D = 2, beta = 1, e = .1: .9 ln(1 + e^-2) + .1 ln(1 + e^2)."""
    policy, reference = pair([-1], [-3]), pair([-2], [-2])
    expected = 0.9 * math.log1p(math.exp(-2)) + 0.1 * math.log1p(math.exp(2))
    assert loss(policy, reference, beta=1.0, label_smoothing=0.1).item() == pytest.approx(expected)


def test_gradient_by_hand_and_its_sign() -> None:
    """dL/dlp = -beta s(-beta D) on every chosen token, the opposite on every rejected one."""
    policy, reference = pair([-1, -2], [-3]), pair([-1, -1], [-2])
    (grad,) = torch.autograd.grad(loss(policy, reference, beta=0.5).sum(), policy.token_logps)
    push = 0.5 / (1 + math.exp(0.5 * (-1 - -1)))
    assert grad.tolist() == pytest.approx([-push, -push, push])


def test_swapping_chosen_and_rejected_flips_the_gradient_at_the_reference() -> None:
    policy = pair([-1, -2], [-3])
    swapped = Examples(PAIR.label, torch.tensor([[1, 0]]))
    (grad,) = torch.autograd.grad(loss(policy, policy.detached()).sum(), policy.token_logps)
    (flipped,) = torch.autograd.grad(DPO()(policy, policy.detached(), swapped, CONTEXT).value.sum(), policy.token_logps)
    torch.testing.assert_close(grad, -flipped)


def test_a_constant_added_to_policy_and_reference_changes_nothing() -> None:
    policy, reference = pair([-1, -2], [-3]), pair([-2, -1], [-2.5])
    shift = torch.tensor([-0.3, -0.7, -2.0], dtype=torch.float64)
    shifted = loss(policy.replaced(policy.token_logps + shift), reference.replaced(reference.token_logps + shift))
    torch.testing.assert_close(loss(policy, reference), shifted)


def test_gradcheck() -> None:
    reference = pair([-1, -2], [-3]).detached()
    token = torch.tensor([-0.5, -2.5, -2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: loss(reference.replaced(t), reference, label_smoothing=0.2), token)


@pytest.mark.parametrize("extreme", [0.0, -1e-7, -1e-3, -120.0, -300.0])
def test_finite_at_extremes_in_float32(extreme: float) -> None:
    token = torch.tensor([extreme, -1.0], requires_grad=True)
    policy = Completions(token, torch.tensor([0, 1]), torch.tensor([1, 1]))
    value = loss(policy, policy.replaced(torch.tensor([-1.0, extreme])), beta=1.0)
    (grad,) = torch.autograd.grad(value.sum(), token)
    assert value.isfinite().all()
    assert grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 0.0}, "beta must be > 0, got 0.0"),
        ({"label_smoothing": 0.5}, "label_smoothing must be in [0, 0.5), got 0.5"),
    ],
)
def test_refuses_arguments_out_of_range(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        DPO(**arguments)
