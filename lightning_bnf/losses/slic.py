"""SLiC-HF."""

from torch import Tensor

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import NonNegativeFloat, PositiveFloat


class SLiC(PairLoss):
    """Sequence Likelihood Calibration with Human Feedback (Zhao et al. 2023, arXiv 2305.10425), rank loss and
    regularisation.

        L = E[ max(0, delta - S_w + S_l) - lambda S_w ],    S = log pi(y), summed over the completion's tokens

        symbol   argument         meaning
        delta    delta            margin in nats that the hinge asks for, > 0
        lambda   regularization   weight of the likelihood of the chosen completion, >= 0

    The BNF paper's table prints the hinge alone: `regularization=0`. No reference. The hinge of log-ratios that some
    libraries call SLiC is another loss. Takes pairs (P), returns a value for each, (P,). Raises Refusal for
    arguments out of range.
    """

    needs_reference = False

    def __init__(self, delta: PositiveFloat = 1.0, regularization: NonNegativeFloat = 0.1):
        """
        Args:
            delta: Margin that the hinge asks for (> 0, nats).
            regularization: Weight of the chosen completion's negative log-likelihood (>= 0).
        """
        self.delta = delta
        self.regularization = regularization

    def pair_loss(self, pairs: Pairs) -> Tensor:
        hinge = (self.delta - pairs.chosen.logps + pairs.rejected.logps).clamp(min=0)
        return hinge - self.regularization * pairs.chosen.logps
