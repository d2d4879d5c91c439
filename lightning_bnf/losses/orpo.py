"""Odds Ratio Preference Optimization."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import NonNegativeFloat


class ORPO(PairLoss):
    """Odds Ratio Preference Optimization (Hong et al. 2024, arXiv 2403.07691, Eq. 6-7).

        L = E[ -A_w - lambda log s(o_w - o_l) ]
        A = mean token log-prob of the completion,    o = log odds(e^A) = A - log(1 - e^A)

        symbol   argument      meaning
        lambda   odds_weight   weight of the odds-ratio term, >= 0

    A is clamped to <= -1e-6: at probability 1 the odds are infinite. The first term is the completion's own mean; the
    authors' code, and libraries after it, take the mean over all tokens of the batch, prompt included. No reference.
    Takes pairs (P), returns a value for each, (P,). Raises Refusal for a negative weight.
    """

    needs_reference = False
    learning_rate = 8e-6
    adapter_learning_rate = 8e-5

    def __init__(self, odds_weight: NonNegativeFloat = 0.1):
        """
        Args:
            odds_weight: Weight of the odds-ratio term, the paper's lambda (>= 0).
        """
        self.odds_weight = odds_weight

    def pair_loss(self, pairs: Pairs) -> Tensor:
        log_odds_ratio = pairs.chosen.mean_log_odds - pairs.rejected.mean_log_odds
        return -pairs.chosen.mean_logps - self.odds_weight * logsigmoid(log_odds_ratio)
