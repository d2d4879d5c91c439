"""DPO with the chosen completion's likelihood."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.arguments import not_negative, positive
from lightning_bnf.losses.pairs import PairLoss, Pairs


class DPONLL(PairLoss):
    """DPO + NLL of Iterative Reasoning Preference Optimization (Pang et al. 2024, arXiv 2404.19733).

        L = E[ -log s(beta D) - alpha A_w ],    D = R_w - R_l (summed),    A_w = mean token log-prob of the chosen

        symbol   argument   meaning
        beta     beta       strength of the tie to the reference, > 0
        alpha    alpha      weight of the chosen completion's mean likelihood, >= 0

    Takes pairs (P), returns a value for each, (P,). Raises ValueError for arguments out of range.
    """

    needs_reference = True

    def __init__(self, beta: float = 0.1, alpha: float = 1.0):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, no unit).
            alpha: Weight of the chosen completion's mean negative log-likelihood (>= 0).
        """
        positive(beta=beta)
        not_negative(alpha=alpha)
        self.beta = beta
        self.alpha = alpha

    def pair_loss(self, pairs: Pairs) -> Tensor:
        return -logsigmoid(self.beta * pairs.margin) - self.alpha * pairs.chosen.mean_logps
