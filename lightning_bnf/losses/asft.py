"""Aligned supervised fine-tuning."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import NonNegativeFloat


class ASFT(PairLoss):
    """Aligned Supervised Fine-Tuning by absolute likelihood (Wang et al. 2024, arXiv 2409.10571).

        L = E[ -A_w - lambda (log s(o_w) + log s(-o_l)) ]
        A = mean token log-prob of the completion,    o = log odds(e^A)

        symbol   argument      meaning
        lambda   odds_weight   weight of the odds terms, >= 0

    A is clamped to <= -1e-6, as in ORPO. No reference. Takes pairs (P), returns a value for each, (P,). Raises
    Refusal for a negative weight.
    """

    needs_reference = False
    learning_rate = 8e-6
    adapter_learning_rate = 8e-5

    def __init__(self, odds_weight: NonNegativeFloat = 0.1):
        """
        Args:
            odds_weight: Weight of the odds terms, the paper's lambda (>= 0).
        """
        self.odds_weight = odds_weight

    def pair_loss(self, pairs: Pairs) -> Tensor:
        odds = logsigmoid(pairs.chosen.mean_log_odds) + logsigmoid(-pairs.rejected.mean_log_odds)
        return -pairs.chosen.mean_logps - self.odds_weight * odds
