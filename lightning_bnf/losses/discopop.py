"""DiscoPOP."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import PositiveFloat


class DiscoPOP(PairLoss):
    """Log-ratio modulated loss, discovered by a language model (Lu et al. 2024, arXiv 2406.08414).

        L = E[ (1 - m) (-log s(beta D)) + m e^(-beta D) ],    m = s(beta D / tau),    D = R_w - R_l (summed)

        symbol   argument   meaning
        beta     beta       strength of the tie to the reference, > 0
        tau      tau        temperature of the modulation, > 0

    Near D = 0 and with the defaults the gradient points away from the chosen completion: the loss is not monotonic.
    The second term is computed as exp(log s(beta D / tau) - beta D): as written it is 0 x inf for D far below 0.
    Takes pairs (P), returns a value for each, (P,). Raises Refusal for arguments out of range.
    """

    needs_reference = True
    logratios_only = True
    raises_preferred = False  # near the reference it turns around
    lowers_dispreferred = False

    def __init__(self, beta: PositiveFloat = 0.05, tau: PositiveFloat = 0.05):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
            tau: Temperature of the modulation (> 0, no unit).
        """
        self.beta = beta
        self.tau = tau

    def pair_loss(self, pairs: Pairs) -> Tensor:
        margin = self.beta * pairs.margin
        logistic = (-margin / self.tau).sigmoid() * -logsigmoid(margin)
        exponential = (logsigmoid(margin / self.tau) - margin).exp()
        return logistic + exponential
