"""Regularised Preference Optimization."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.arguments import not_negative, positive
from lightning_bnf.losses.pairs import PairLoss, Pairs


class RPO(PairLoss):
    """Regularised Preference Optimization (Liu et al. 2024, arXiv 2405.16436): DPO with the SFT loss as regulariser.

        L = E[ -log s(beta D) - eta beta S_w ],    D = R_w - R_l,    S_w = log pi(y_w), both summed over tokens

        symbol   argument   meaning
        beta     beta       strength of the tie to the reference, > 0
        eta      eta        weight of the chosen completion's likelihood, in units of beta, >= 0

    Takes pairs (P), returns a value for each, (P,). Raises ValueError for arguments out of range.
    """

    needs_reference = True

    def __init__(self, beta: float = 0.01, eta: float = 0.005):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, no unit).
            eta: Weight of the chosen completion's negative log-likelihood, in units of beta (>= 0).
        """
        positive(beta=beta)
        not_negative(eta=eta)
        self.beta = beta
        self.eta = eta

    def pair_loss(self, pairs: Pairs) -> Tensor:
        return -logsigmoid(self.beta * pairs.margin) - self.eta * self.beta * pairs.chosen.logps
