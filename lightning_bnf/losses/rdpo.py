"""R-DPO: DPO with a length penalty."""

from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import NonNegativeFloat, PositiveFloat


class RDPO(PairLoss):
    """Length-regularised DPO (Park et al. 2024, arXiv 2403.19159, "Disentangling length from quality").

        L = -E[ log s(beta D + sign alpha (n_w - n_l)) ],    D = R_w - R_l (summed log-ratios), n = tokens

        symbol   argument   meaning
        beta     beta       strength of the tie to the reference, > 0
        alpha    alpha      price of a token, >= 0
        sign     sign       +1 (default) or -1

    Maximising E[r - alpha |y|] - beta KL gives r = beta R + alpha n + const, hence plus: a chosen answer that is longer
    already has a margin and is pushed less, which is the method's purpose. Tables reprinted in later papers have minus.
    Takes pairs (P), returns a value for each, (P,). Raises Refusal for arguments out of range.
    """

    needs_reference = True
    logratios_only = True

    def __init__(self, beta: PositiveFloat = 0.1, alpha: NonNegativeFloat = 0.01, sign: Literal[1, -1] = 1):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
            alpha: Price of a token (>= 0, per token).
            sign: +1 as derived, -1 as in some reprints.
        """
        self.beta = beta
        self.alpha = alpha
        self.sign = sign

    def pair_loss(self, pairs: Pairs) -> Tensor:
        longer = pairs.chosen.length - pairs.rejected.length
        return -logsigmoid(self.beta * pairs.margin + self.sign * self.alpha * longer)
