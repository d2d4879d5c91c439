"""Margin-adaptive DPO."""

import torch
from torch import Tensor

from lightning_bnf.losses.dpo import DPO
from lightning_bnf.losses.pairs import Pairs
from lightning_bnf.runtime.arguments import AboveOne, NonNegativeFloat, PositiveFloat, ZeroToBelowOne


class MADPO(DPO):
    """Margin-Adaptive DPO (Rho 2025, arXiv 2510.05342): DPO with each pair weighed by the rewards that the data give
    it.

        L = -E[ w(h) log s(beta D) ],    h = r_w - r_l,    D = R_w - R_l (summed log-ratios)
        w(h) = s(c h) / s(h)  where h > -tau, else 1
        c = c_min + (c_max - c_min) / (1 + (c_max - 1) / (1 - c_min) e^(lambda (|h| - tau)))

        symbol   argument                meaning
        beta     beta                    strength of the tie to the reference, > 0
        c_max    max_factor              factor on small gaps of rewards, > 1: they weigh more
        c_min    min_factor              factor on large gaps of rewards, in [0, 1): they weigh less
        lambda   steepness               how fast the one goes over into the other, > 0
        tau      threshold               the gap of rewards where c is 1, >= 0
        r        (data: score_chosen, score_rejected)

    Takes pairs (P), returns a value for each, (P,). Raises Refusal for arguments out of range.
    """

    needs_columns = ("reward",)

    def __init__(
        self,
        beta: PositiveFloat = 0.1,
        max_factor: AboveOne = 2.0,
        min_factor: ZeroToBelowOne = 0.5,
        steepness: PositiveFloat = 1.0,
        threshold: NonNegativeFloat = 6.9,
    ):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
            max_factor: Factor on small gaps of rewards, the paper's c_max (> 1).
            min_factor: Factor on large gaps of rewards, the paper's c_min (at least 0, below 1).
            steepness: How fast the one factor goes over into the other, the paper's lambda (> 0).
            threshold: Gap of rewards where the factor is 1, the paper's tau (>= 0).
        """
        super().__init__(beta=beta)
        self.max_factor = max_factor
        self.min_factor = min_factor
        self.steepness = steepness
        self.threshold = threshold

    def pair_loss(self, pairs: Pairs) -> Tensor:
        return self.weight(pairs.reward_gap) * super().pair_loss(pairs)

    def weight(self, gap: Tensor) -> Tensor:
        """w(h) of gaps of rewards. Shape of `gap`."""
        c_max, c_min = self.max_factor, self.min_factor
        far = (self.steepness * (gap.abs() - self.threshold)).exp()
        c = c_min + (c_max - c_min) / (1 + (c_max - 1) / (1 - c_min) * far)
        weight = (c * gap).sigmoid() / gap.clamp(min=-self.threshold).sigmoid()
        return torch.where(gap > -self.threshold, weight, 1.0)
