"""Length-desensitised DPO."""

import torch
from torch import Tensor

from lightning_bnf.losses.base import Examples, LossOutput, StepContext
from lightning_bnf.losses.completions import Completions
from lightning_bnf.losses.dpo import DPO
from lightning_bnf.runtime.arguments import ClosedUnitInterval, PositiveFloat


class LDDPO(DPO):
    """Length-Desensitised DPO (Liu et al. 2024, arXiv 2409.06411): what only the longer completion has counts less.

        L = -E[ log s(beta (R_w - R_l)) ]
        R = sum_{t <= m} (lp_t - lr_t) + alpha sum_{t > m} (lp_t - lr_t),    m = the shorter completion's length

        symbol   argument   meaning
        beta     beta       strength of the tie to the reference, > 0
        alpha    alpha      weight of the tokens beyond the shorter length, in [0, 1]; at 1 this is DPO

    Takes pairs (P), returns a value for each, (P,). Raises Refusal for arguments out of range.
    """

    def __init__(self, beta: PositiveFloat = 0.1, alpha: ClosedUnitInterval = 0.5):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
            alpha: Weight of the tokens beyond the shorter completion's length (0 to 1).
        """
        super().__init__(beta=beta)
        self.alpha = alpha

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        weight = self._weight(policy, examples)  # (N,)
        weighed = None if reference is None else reference.replaced(weight * reference.token_logps)
        return super().__call__(policy.replaced(weight * policy.token_logps), weighed, examples, step)

    def _weight(self, policy: Completions, examples: Examples) -> Tensor:
        assert examples.pair is not None, "this loss needs pairs; the data were to be refused earlier"
        shorter = torch.minimum(*examples.pairs(policy.length))  # (P,)
        shared = policy.length.index_copy(0, examples.pair.flatten(), shorter.repeat_interleave(2))  # (B,)
        beyond = policy.position >= policy.per_token(shared)
        return torch.where(beyond, self.alpha, 1.0).to(policy.token_logps.dtype)
