"""The hinge loss of RSO."""

from torch import Tensor

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import PositiveFloat


class RSOHinge(PairLoss):
    """The hinge loss on normalised likelihoods of RSO (Liu et al. 2023, arXiv 2309.06657, "hinge-norm"); some libraries
    call it SLiC.

        L = E[ max(0, 1 - gamma D) ],    D = R_w - R_l (summed log-ratios)

        symbol   argument   meaning
        gamma    gamma      inverse of the margin asked for, in 1/nats, > 0

    Takes pairs (P), returns a value for each, (P,). Raises Refusal for a gamma that is not > 0.
    """

    needs_reference = True
    logratios_only = True

    def __init__(self, gamma: PositiveFloat = 0.1):
        """
        Args:
            gamma: Inverse of the margin that the hinge asks for (> 0, 1/nats).
        """
        self.gamma = gamma

    @property
    def implicit_reward_scale(self) -> float:
        return self.gamma

    def pair_loss(self, pairs: Pairs) -> Tensor:
        return (1 - self.gamma * pairs.margin).clamp(min=0)
