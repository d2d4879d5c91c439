"""Contrastive Preference Optimization."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import NonNegativeFloat, PositiveFloat


class CPO(PairLoss):
    """Contrastive Preference Optimization (Xu et al. 2024, arXiv 2401.08417).

        L = E[ -log s(beta (S_w - S_l)) - alpha A_w ],    S = summed, A = mean token log-prob of the completion

        symbol   argument   meaning
        beta     beta       scale of the log-probs, > 0
        alpha    alpha      weight of the chosen completion's mean likelihood, >= 0

    The second term is the completion's own mean; some libraries take the mean over the tokens of the batch.
    No reference. Takes pairs (P), returns a value for each, (P,). Raises Refusal for arguments out of range.
    """

    needs_reference = False

    def __init__(self, beta: PositiveFloat = 0.1, alpha: NonNegativeFloat = 1.0):
        """
        Args:
            beta: Scale of the log-probs (> 0, 1/nats).
            alpha: Weight of the chosen completion's mean negative log-likelihood (>= 0).
        """
        self.beta = beta
        self.alpha = alpha

    def pair_loss(self, pairs: Pairs) -> Tensor:
        margin = pairs.chosen.logps - pairs.rejected.logps
        return -logsigmoid(self.beta * margin) - self.alpha * pairs.chosen.mean_logps
