"""DPO on length-normalised log-ratios."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import PositiveFloat


class SigmoidNorm(PairLoss):
    """DPO with log-ratios averaged over tokens, as Tulu 3 uses it (Lambert et al. 2024, arXiv 2411.15124).

        L = -E[ log s(beta (Rbar_w - Rbar_l)) ],    Rbar = mean log-ratio over the completion's tokens

        symbol   argument   meaning
        beta     beta       strength of the tie to the reference, > 0

    Takes pairs (P), returns a value for each, (P,). Raises Refusal for a beta that is not > 0.
    """

    needs_reference = True
    logratios_only = True

    def __init__(self, beta: PositiveFloat = 0.1):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
        """
        self.beta = beta

    def pair_loss(self, pairs: Pairs) -> Tensor:
        return -logsigmoid(self.beta * pairs.mean_margin)
