"""Efficient Exact Optimization."""

import math

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import AboveZeroToBelowHalf, PositiveFloat


class EXO(PairLoss):
    """EXO for pairs (Ji et al. 2024, arXiv 2402.00856): the reverse KL from the policy's preference to the smoothed
    label.

        L = E[ q (log q - log(1 - e)) + (1 - q) (log(1 - q) - log e) ],    q = s(beta D),  D = R_w - R_l (summed)

        symbol   argument          meaning
        beta     beta              strength of the tie to the reference, > 0
        e        label_smoothing   probability given to the rejected completion, in (0, 0.5): at 0 the KL is infinite

    Takes pairs (P), returns a value for each, (P,). Raises Refusal for arguments out of range.
    """

    needs_reference = True
    logratios_only = True

    def __init__(self, beta: PositiveFloat = 0.1, label_smoothing: AboveZeroToBelowHalf = 1e-3):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
            label_smoothing: Probability given to the rejected completion (above 0, below 0.5).
        """
        self.beta = beta
        self.label_smoothing = label_smoothing

    def pair_loss(self, pairs: Pairs) -> Tensor:
        margin, e = self.beta * pairs.margin, self.label_smoothing
        log_q, log_not_q = logsigmoid(margin), logsigmoid(-margin)
        return margin.sigmoid() * (log_q - math.log1p(-e)) + (-margin).sigmoid() * (log_not_q - math.log(e))
