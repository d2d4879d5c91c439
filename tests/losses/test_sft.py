"""SFT and NLL + PLL on hand-made numbers."""

import pytest
import torch

from lightning_bnf.losses import NLLPLL, SFT, Examples, StepContext
from lightning_bnf.losses.completions import Completions

# Preferred, two tokens (-1, -2); dispreferred, one token (-4); preferred, one token (-5).
TOKEN, ROW, LENGTH = [-1.0, -2.0, -4.0, -5.0], torch.tensor([0, 0, 1, 2]), torch.tensor([2, 1, 1])
EXAMPLES = Examples(torch.tensor([1, -1, 1]))
CONTEXT = StepContext(pairs=0, preferred=2, dispreferred=1, preferred_tokens=3, smallest_length=1)


def completions() -> Completions:
    return Completions(torch.tensor(TOKEN, dtype=torch.float64, requires_grad=True), ROW, LENGTH)


@pytest.mark.parametrize(
    ("reduction", "values"),
    [
        ("mean", [1.5, 5.0]),  # (1 + 2) / 2 and 5 / 1
        ("sum", [3.0, 5.0]),
        ("token_mean", [3.0 * 2 / 3, 5.0 * 2 / 3]),  # their mean over 2 examples is (1 + 2 + 5) / 3 tokens
    ],
)
def test_sft_takes_preferred_completions_alone(reduction: str, values: list[float]) -> None:
    policy = completions()
    output = SFT(reduction)(policy, None, EXAMPLES, CONTEXT)  # type: ignore[arg-type]
    assert output.value.tolist() == pytest.approx(values)
    (grad,) = torch.autograd.grad(output.value.sum(), policy.token_logps)
    assert grad[2] == 0
    assert (grad[[0, 1, 3]] < 0).all()
    assert SFT().value_count(CONTEXT) == 2


@pytest.mark.parametrize(("reduction", "values"), [("mean", [1.5, -4.0, 5.0]), ("sum", [3.0, -4.0, 5.0])])
def test_nll_pll_by_hand(reduction: str, values: list[float]) -> None:
    policy = completions()
    output = NLLPLL(reduction)(policy, None, EXAMPLES, CONTEXT)  # type: ignore[arg-type]
    assert output.value.tolist() == pytest.approx(values)
    (grad,) = torch.autograd.grad(output.value.sum(), policy.token_logps)
    assert grad.tolist() == pytest.approx([-0.5, -0.5, 1.0, -1.0] if reduction == "mean" else [-1, -1, 1, -1])
    assert NLLPLL().value_count(CONTEXT) == 3


def test_refuses_another_reduction() -> None:
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'token_mean', got 'max'"):
        SFT("max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum', got 'token_mean'"):
        NLLPLL("token_mean")  # type: ignore[arg-type]
