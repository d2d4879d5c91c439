"""Distributional Dispreference Optimization."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.base import Examples, Loss, LossOutput, StepContext, logratios
from lightning_bnf.losses.completions import Completions
from lightning_bnf.runtime.arguments import PositiveFloat


class D2O(Loss):
    """Distributional Dispreference Optimization (Duan et al. 2024, arXiv 2403.03419).

        L = -E[ log s((beta / K) sum_k R(y_k) - alpha R(y_l)) ],    R = log pi(y) - log ref(y), summed
        y_1, ..., y_K = the model's own samples, stored with the row;  y_l = the row's rejected completion

        symbol   argument   meaning
        beta     beta       weight of the samples' mean log-ratio, > 0
        alpha    alpha      weight of the rejected completion's log-ratio, > 0

    Takes rows of samples and a rejected completion (G), returns a value for each, (G,). Raises Refusal for arguments
    out of range.
    """

    needs_reference = True
    logratios_only = True
    needs_groups = True

    def __init__(self, beta: PositiveFloat = 0.1, alpha: PositiveFloat = 0.1):
        """
        Args:
            beta: Weight of the samples' mean log-ratio (> 0, 1/nats).
            alpha: Weight of the rejected completion's log-ratio (> 0, no unit).
        """
        self.beta = beta
        self.alpha = alpha

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        assert examples.group is not None, "this loss needs groups; the data were to be refused earlier"
        ratios, group, (own, others) = logratios(policy, reference), examples.group, examples.sides()
        count = examples.groups()
        rejected = _by_group(ratios[others], group[others], count)  # (G,)
        samples = _by_group(ratios[own], group[own], count) / _by_group(torch.ones_like(ratios[own]), group[own], count)
        return LossOutput(-logsigmoid(self.beta * samples - self.alpha * rejected))


def _by_group(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """Sum `values` (n,) by their `owner` (n,), one of `count` groups: (G,)."""
    return values.new_zeros(count).index_add(0, owner, values)
