"""DPO-Positive."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import NonNegativeFloat, PositiveFloat


class DPOP(PairLoss):
    """DPO-Positive, the loss of Smaug (Pal et al. 2024, arXiv 2402.13228): a penalty once the chosen falls below the
    reference.

        L = -E[ log s(beta (D - lambda max(0, -R_w))) ],    D = R_w - R_l,    R = summed log-ratio

        symbol   argument   meaning
        beta     beta       strength of the tie to the reference, > 0
        lambda   penalty    weight of the penalty, >= 0

    At R_w = 0, where a run begins, the chosen has not fallen, so the gradient is that of the flat side, as in most
    code: DPO's. The other side would pull on it 1 + lambda times as hard in the whole first step.

    Takes pairs (P), returns a value for each, (P,). Raises Refusal for arguments out of range.
    """

    needs_reference = True
    logratios_only = True

    def __init__(self, beta: PositiveFloat = 0.3, penalty: NonNegativeFloat = 50.0):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
            penalty: Weight of the chosen completion's fall below the reference (>= 0).
        """
        self.beta = beta
        self.penalty = penalty

    def pair_loss(self, pairs: Pairs) -> Tensor:
        fallen = (-pairs.chosen.logratios).relu()  # not clamp, whose gradient at 0 is that of the steep side
        return -logsigmoid(self.beta * (pairs.margin - self.penalty * fallen))
