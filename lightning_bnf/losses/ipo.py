"""Identity Preference Optimization."""

from torch import Tensor

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import PositiveFloat


class IPO(PairLoss):
    """Identity Preference Optimization (Azar et al. 2023, arXiv 2310.12036, Eq. 17).

        L = E[ (D - 1 / (2 tau))^2 ]
        D = R_w - R_l,    R = log pi(y) - log ref(y), over the tokens: summed, or their mean

        symbol   argument           meaning
        tau      tau                strength of the regularisation, > 0; the minimum is at D = 1 / (2 tau)
        R        length_normalize   True: mean over the completion's tokens; False: their sum

    The paper prints sums; its authors recommended means to implementers, whose default that became, and ours.
    Takes pairs (P), returns a value for each, (P,). Raises Refusal for a tau that is not > 0.
    """

    needs_reference = True
    logratios_only = True

    def __init__(self, tau: PositiveFloat = 0.1, length_normalize: bool = True):
        """
        Args:
            tau: Strength of the regularisation (> 0); log-ratios are driven to differ by 1 / (2 tau) nats.
            length_normalize: Whether log-ratios are means over a completion's tokens (else sums).
        """
        self.tau = tau
        self.length_normalize = length_normalize

    def pair_loss(self, pairs: Pairs) -> Tensor:
        margin = pairs.mean_margin if self.length_normalize else pairs.margin
        return (margin - 1 / (2 * self.tau)).square()
