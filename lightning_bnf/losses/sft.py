"""Supervised fine-tuning."""

from typing import Literal

from torch import Tensor

from lightning_bnf.losses.base import StepContext
from lightning_bnf.losses.tokens import TokenLoss, Tokens


class SFT(TokenLoss):
    """Negative log-likelihood of preferred completions (BNF paper, Eq. 2).

        L = -E[ c * sum_t log pi(y_t) ]

        symbol   argument    meaning
        c        reduction   "mean": 1/|y|;  "sum": 1;  "token_mean": examples of the step / tokens of the step, so that
                             the mean over examples is the mean over all the step's tokens

    Dispreferred completions are not used. Takes completions (B), returns a value for each, (B,), in nats.
    Raises Refusal for another `reduction`.
    """

    needs_reference = False
    labels = (1,)
    learning_rate = 2e-5
    adapter_learning_rate = 2e-4

    def __init__(self, reduction: Literal["mean", "sum", "token_mean"] = "mean"):
        """
        Args:
            reduction: How a completion's token losses are reduced: their mean, their sum, or the step's token mean.
        """
        self.reduction = reduction

    def token_weight(self, tokens: Tokens, step: StepContext) -> Tensor:
        preferred = (tokens.label > 0).to(tokens.policy.dtype)
        if self.reduction == "mean":
            return preferred / tokens.length
        if self.reduction == "sum":
            return preferred
        return preferred * step.token_mean
