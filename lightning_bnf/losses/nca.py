"""Noise Contrastive Alignment."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import PositiveFloat


class NCA(PairLoss):
    """Noise Contrastive Alignment for pairs (Chen et al. 2024, arXiv 2402.05369): absolute rewards, not only their
    difference.

        L = E[ -log s(beta R_w) - log s(-beta R_w) / 2 - log s(-beta R_l) / 2 ],    R = summed log-ratio

        symbol   argument   meaning
        beta     beta       strength of the tie to the reference, > 0

    Takes pairs (P), returns a value for each, (P,). Raises Refusal for a beta that is not > 0.
    """

    needs_reference = True
    logratios_only = True

    def __init__(self, beta: PositiveFloat = 0.01):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
        """
        self.beta = beta

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = (self.beta * side.logratios for side in (pairs.chosen, pairs.rejected))
        return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)
