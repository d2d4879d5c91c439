"""Negative log-likelihood on preferred, positive log-likelihood on dispreferred completions."""

from typing import Literal

from torch import Tensor

from lightning_bnf.losses.base import StepContext
from lightning_bnf.losses.tokens import TokenLoss, Tokens


class NLLPLL(TokenLoss):
    """NLL + PLL (BNF paper, Eq. 1; Eq. 4 with the one-hot target of Eq. 5).

        L = -E[ label * c * sum_t log pi(y_t) ]

        symbol   argument    meaning
        c        reduction   "mean": 1/|y| (Eq. 4);  "sum": 1 (Eq. 1)
        label    (data)      +1 preferred, -1 dispreferred; pairs are not needed

    The gradient on a dispreferred token grows as its probability falls, so the model collapses: this is the baseline
    that shows why BNF is needed. Takes completions (B), returns a value for each, (B,), in nats.
    Raises Refusal for another `reduction`.
    """

    needs_reference = False
    value_falls = False  # preferred and dispreferred log-probs enter with opposite signs

    def __init__(self, reduction: Literal["mean", "sum"] = "mean"):
        """
        Args:
            reduction: How a completion's token losses are reduced: their mean or their sum.
        """
        self.reduction = reduction

    def token_weight(self, tokens: Tokens, step: StepContext) -> Tensor:
        return tokens.label / tokens.length if self.reduction == "mean" else tokens.label
