"""Provably robust DPO."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import PositiveFloat, ZeroToBelowHalf


class RobustDPO(PairLoss):
    """rDPO (Chowdhury et al. 2024, arXiv 2403.00409): DPO, unbiased under a known share of swapped labels.

        L = E[ (-(1 - e) log s(beta D) + e log s(-beta D)) / (1 - 2 e) ],    D = R_w - R_l (summed log-ratios)

        symbol   argument          meaning
        beta     beta              strength of the tie to the reference, > 0
        e        label_smoothing   share of swapped labels, in [0, 0.5)

    Takes pairs (P), returns a value for each, (P,). Raises Refusal for arguments out of range.
    """

    needs_reference = True
    logratios_only = True

    def __init__(self, beta: PositiveFloat = 0.1, label_smoothing: ZeroToBelowHalf = 0.1):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
            label_smoothing: Share of swapped labels (at least 0, below 0.5).
        """
        self.beta = beta
        self.label_smoothing = label_smoothing

    def pair_loss(self, pairs: Pairs) -> Tensor:
        margin, e = self.beta * pairs.margin, self.label_smoothing
        return (e * logsigmoid(-margin) - (1 - e) * logsigmoid(margin)) / (1 - 2 * e)
