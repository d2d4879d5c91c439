"""Simple Preference Optimization."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import NonNegativeFloat, PositiveFloat


class SimPO(PairLoss):
    """Simple Preference Optimization (Meng et al. 2024, arXiv 2405.14734, Eq. 6), in the parametrisation of the
    authors' code.

        L = -E[ log s(beta (A_w - A_l - gamma / beta)) ],    A = mean token log-prob of the completion

        symbol         argument           meaning
        beta           beta               scale of the mean log-probs, > 0
        gamma / beta   gamma_beta_ratio   target margin in nats a token, >= 0

    No reference. Takes pairs (P), returns a value for each, (P,). Raises Refusal for arguments out of range.
    """

    needs_reference = False

    def __init__(self, beta: PositiveFloat = 2.0, gamma_beta_ratio: NonNegativeFloat = 0.25):
        """
        Args:
            beta: Scale of the mean log-probs (> 0, 1/nats).
            gamma_beta_ratio: Target margin (>= 0, nats a token); the paper's gamma is beta times it.
        """
        self.beta = beta
        self.gamma_beta_ratio = gamma_beta_ratio

    def pair_loss(self, pairs: Pairs) -> Tensor:
        margin = pairs.chosen.mean_logps - pairs.rejected.mean_logps
        return -logsigmoid(self.beta * (margin - self.gamma_beta_ratio))
