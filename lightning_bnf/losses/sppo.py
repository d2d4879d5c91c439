"""Self-Play Preference Optimization, on given preferences."""

import torch
from torch import Tensor

from lightning_bnf.losses.pairs import PairLoss, Pairs, Side
from lightning_bnf.runtime.arguments import PositiveFloat


class SPPO(PairLoss):
    """Self-Play Preference Optimization (Wu et al. 2024, arXiv 2405.00675), one offline round.

        L = E[ ((R_w - (P_w - 1/2) / beta)^2 + (R_l - (P_l - 1/2) / beta)^2) / 2 ],    R = summed log-ratio

        symbol   argument                      meaning
        beta     beta                          strength of the tie to the reference, > 0; the paper's 1/eta
        P        (data: win_probability_...)   probability that the completion wins against the policy's own; 1 for
                                               chosen and 0 for rejected ones where the data do not give it

    Some libraries leave out the factor 1/2 ("sppo_hard"). Takes pairs (P), returns a value for each, (P,), in nats^2.
    Raises Refusal for a beta that is not > 0.
    """

    needs_reference = True
    logratios_only = True

    def __init__(self, beta: PositiveFloat = 0.001):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
        """
        self.beta = beta

    def pair_loss(self, pairs: Pairs) -> Tensor:
        return (self._error(pairs.chosen, 1.0).square() + self._error(pairs.rejected, 0.0).square()) / 2

    def _error(self, side: Side, label: float) -> Tensor:
        """How far the log-ratio is from its target, (P,)."""
        given = side.column("win_probability")
        wins = torch.where(given.isnan(), label, given)
        return side.logratios - (wins - 0.5) / self.beta
