"""Anchored Preference Optimization."""

from torch import Tensor

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import PositiveFloat


class APOZero(PairLoss):
    """APO-zero (D'Oosterlinck et al. 2024, arXiv 2408.06266): raises the chosen and lowers the rejected, each against
    the reference.

        L = E[ 1 - s(beta R_w) + s(beta R_l) ],    R = summed log-ratio

        symbol   argument   meaning
        beta     beta       strength of the tie to the reference, > 0

    For chosen completions that are better than the policy's own. Takes pairs (P), returns a value for each, (P,).
    Raises Refusal for a beta that is not > 0.
    """

    needs_reference = True
    logratios_only = True

    def __init__(self, beta: PositiveFloat = 0.1):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
        """
        self.beta = beta

    def pair_loss(self, pairs: Pairs) -> Tensor:
        return 1 - (self.beta * pairs.chosen.logratios).sigmoid() + (self.beta * pairs.rejected.logratios).sigmoid()


class APODown(APOZero):
    """APO-down (D'Oosterlinck et al. 2024, arXiv 2408.06266): lowers both, the rejected more.

        L = E[ s(beta R_w) + 1 - s(beta D) ],    D = R_w - R_l,    R = summed log-ratio

    For chosen completions that are worse than the policy's own. Argument, shapes and errors as in `APOZero`.
    """

    raises_preferred = False  # lowers both

    def pair_loss(self, pairs: Pairs) -> Tensor:
        return (self.beta * pairs.chosen.logratios).sigmoid() + 1 - (self.beta * pairs.margin).sigmoid()
