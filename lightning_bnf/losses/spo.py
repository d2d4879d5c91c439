"""Stable Preference Optimization."""

import math

from torch import Tensor

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import BelowOne, PositiveFloat


class SPO(PairLoss):
    """Stable preference optimization with a finite target (arXiv 2508.07137); four other methods share the letters.

        L = E[ f(beta D / gap) ],    f(z) = -z e^(-z),    D = R_w - R_l (summed log-ratios)
        gap = max(reward_scale (r_w - r_l), min_gap),  1 where the data give no rewards
        f goes on as a straight line below z_min, with its value and slope there: e^(-z) would explode

        symbol         argument            meaning
        beta           beta                strength of the tie to the reference, > 0
        reward_scale   reward_scale   what rewards are multiplied with, > 0
        min_gap        min_gap             smallest gap of rewards, > 0
        z_min          z_min               where the straight line begins, < 1

    A reconstruction: the paper's text could not be had, only its abstract (a finite target of the log-ratio difference,
    dictated by the reward; no large gradients as the dispreferred probability goes to 0), beside a text with the same
    claims that states f. The optimum of the RLHF objective has beta D = r_w - r_l, which is where f is lowest: z = 1.
    Rows whose chosen completion is not scored above the rejected one are dropped, and counted.
    Takes pairs (P), returns a value for each, (P,). Raises Refusal for arguments out of range.
    """

    needs_reference = True
    logratios_only = True
    needs_ordered_rewards = True

    def __init__(
        self,
        beta: PositiveFloat = 0.1,
        reward_scale: PositiveFloat = 1.0,
        min_gap: PositiveFloat = 0.1,
        z_min: BelowOne = -3.0,
    ):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
            reward_scale: What the data's rewards are multiplied with (> 0).
            min_gap: Smallest gap of rewards that a pair is given (> 0).
            z_min: Where the loss goes over into a straight line (below 1).
        """
        self.beta = beta
        self.reward_scale = reward_scale
        self.min_gap = min_gap
        self.z_min = z_min

    def pair_loss(self, pairs: Pairs) -> Tensor:
        gap = (self.reward_scale * pairs.reward_gap).clamp(min=self.min_gap).nan_to_num(nan=1.0)
        z = self.beta * pairs.margin / gap
        curved = z.clamp(min=self.z_min)  # below z_min a constant, so the line's slope is the only gradient there
        value = -curved * (-curved).exp()
        slope = (self.z_min - 1) * math.exp(-self.z_min)
        return value + slope * (z - self.z_min).clamp(max=0)
