"""Losses of users' own with values of another shape, or without a declaration: refused in a sentence."""

from typing import Any

import pytest
import torch

from lightning_bnf.losses import (
    BNF,
    SFT,
    Completions,
    Examples,
    Loss,
    LossOutput,
    PairLoss,
    Pairs,
    StepContext,
    Sum,
    Term,
    TokenLoss,
    Tokens,
)
from lightning_bnf.losses.outputs import checked_output
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy
from lightning_bnf.runtime.refusal import Refusal


class Shaped(PairLoss):
    """A user's loss, of which `reduce` makes another shape of the values (4,)."""

    needs_reference = False

    def __init__(self, reduce: Any):
        self.reduce = reduce

    def pair_loss(self, pairs: Pairs) -> torch.Tensor:
        return self.reduce(pairs.chosen.logps)  # type: ignore[no-any-return]


FOUR_PAIRS = Examples(torch.tensor([1, -1] * 4), torch.arange(8).reshape(4, 2))
EIGHT = Completions(-torch.ones(8), torch.arange(8), torch.ones(8, dtype=torch.long))
STEP = StepContext(pairs=4, preferred=4, dispreferred=4, preferred_tokens=4, smallest_length=1)


@pytest.mark.parametrize(
    ("reduce", "shape"),
    [(torch.mean, r"\(\)"), (lambda x: x[:1], r"\(1,\)"), (lambda x: x[:, None], r"\(4, 1\)")],
)
def test_a_value_of_another_shape_is_refused(reduce: Any, shape: str) -> None:
    wanted = rf"the value of Shaped must have the shape \(4,\), one number a pair, got {shape}$"
    with pytest.raises(Refusal, match=wanted):
        Shaped(reduce)(EIGHT, None, FOUR_PAIRS, STEP)
    with pytest.raises(Refusal, match=wanted):
        Sum([Term(Shaped(reduce))])(EIGHT, None, FOUR_PAIRS, STEP)
    assert Shaped(torch.neg)(EIGHT, None, FOUR_PAIRS, STEP).value.tolist() == [1.0] * 4


class Token(TokenLoss):
    needs_reference = False

    def __init__(self, weight: Any):
        self.weight = weight

    def token_weight(self, tokens: Tokens, step: StepContext) -> torch.Tensor:
        return self.weight(tokens.policy)  # type: ignore[no-any-return]


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(Refusal, match="the value of Shaped must be a tensor, got tuple"):
        Shaped(lambda values: (values, {}))(EIGHT, None, FOUR_PAIRS, STEP)


class OfRatios(Shaped):
    def pair_loss(self, pairs: Pairs) -> torch.Tensor:
        return -pairs.margin


def test_a_value_that_teaches_nothing_is_refused() -> None:
    """Where the policy is trained; log-ratios without a reference are named as one way to come by it."""
    trained = Completions(-torch.ones(8, requires_grad=True), torch.arange(8), torch.ones(8, dtype=torch.long))
    for loss in (Shaped(torch.Tensor.detach), OfRatios(None)):
        with pytest.raises(
            Refusal, match=r"of the policy's log-probs, got one without a gradient.* log-ratios, which are"
        ):
            loss(trained, None, FOUR_PAIRS, STEP)
        assert loss(EIGHT, None, FOUR_PAIRS, STEP).value.shape == (4,)
    assert Shaped(torch.neg)(trained, None, FOUR_PAIRS, STEP).value.requires_grad


def test_weights_of_another_shape_are_refused() -> None:
    """(8, 1) would be multiplied with each token's log-probability: 64 products in place of 8."""
    loss = Token(lambda logps: logps[:, None])
    with pytest.raises(Refusal, match=r"the weights of Token must have the shape \(8,\), one a token, got \(8, 1\)"):
        loss(EIGHT, None, FOUR_PAIRS, STEP)
    weigh = loss.weigher(EIGHT, FOUR_PAIRS, STEP)
    assert weigh is not None
    with pytest.raises(Refusal, match=r"\(3,\), one a token, got \(3, 1\)"):
        weigh(-torch.ones(3), slice(0, 3))


def test_what_a_loss_returns() -> None:
    """Of BNF one number a completion, of SFT one a preferred one; of a sum, which counts for itself, some."""
    for loss, good, size in ((BNF(), 8, "8"), (SFT(), 4, "4"), (Sum([Term(SFT())]), 4, "n")):
        assert checked_output(loss, output := LossOutput(torch.zeros(good)), FOUR_PAIRS) is output
        with pytest.raises(Refusal, match=rf"shape \({size},\), one number a (completion|example), got \(\)"):
            checked_output(loss, LossOutput(torch.tensor(0.5)), FOUR_PAIRS)
    with pytest.raises(Refusal, match="BNF must return a LossOutput, got Tensor"):
        checked_output(BNF(), torch.zeros(8), FOUR_PAIRS)  # type: ignore[arg-type]


class Undeclared(Loss):
    def __call__(self, policy: Any, reference: Any, examples: Any, step: Any) -> LossOutput:
        return LossOutput(policy.sum())


def test_a_loss_says_whether_it_needs_a_reference(tiny_folder: str) -> None:
    wanted = "Undeclared.needs_reference must be True where its values use the reference and False where they do not"
    with pytest.raises(Refusal, match=wanted):
        PreferenceModule(FullPolicy(tiny_folder), Undeclared())
    with pytest.raises(Refusal, match=wanted):
        Sum([Term(Undeclared())])
