"""Direct Preference Optimization."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import PositiveFloat, ZeroToBelowHalf


class DPO(PairLoss):
    """Direct Preference Optimization (Rafailov et al. 2023, arXiv 2305.18290, Eq. 7), with the label smoothing of
    conservative DPO.

        L = -E[ (1 - e) log s(beta D) + e log s(-beta D) ]
        D = R_w - R_l,    R = log pi(y) - log ref(y)   (summed over the completion's tokens)

        symbol   argument          meaning
        beta     beta              strength of the tie to the reference, > 0
        e        label_smoothing   assumed share of swapped labels, in [0, 0.5)

    Takes pairs (P), returns a value for each, (P,). Raises Refusal for arguments out of range.
    """

    needs_reference = True
    logratios_only = True

    def __init__(self, beta: PositiveFloat = 0.1, label_smoothing: ZeroToBelowHalf = 0.0):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
            label_smoothing: Assumed share of swapped labels (at least 0, below 0.5).
        """
        self.beta = beta
        self.label_smoothing = label_smoothing

    def pair_loss(self, pairs: Pairs) -> Tensor:
        margin, e = self.beta * pairs.margin, self.label_smoothing
        return -(1 - e) * logsigmoid(margin) - e * logsigmoid(-margin)
