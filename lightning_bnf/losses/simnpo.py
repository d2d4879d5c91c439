"""Simple Negative Preference Optimization."""

from lightning_bnf.losses.base import Examples, Loss, LossOutput, StepContext
from lightning_bnf.losses.completions import Completions
from lightning_bnf.losses.npo import forgetting
from lightning_bnf.runtime.arguments import FiniteFloat, NonNegativeFloat, PositiveFloat


class SimNPO(Loss):
    """Simple NPO (Fan et al. 2024, arXiv 2410.07163): NPO without a reference, normalised by length.

        L = E[ -(2 / beta) log s(beta (-A - gamma)) ]   dispreferred (forget),    A = mean token log-prob
        L = E[ -retain_weight A ]                       preferred (retain)

        symbol          argument        meaning
        beta            beta            scale of the mean log-prob, > 0
        gamma           gamma           margin in nats a token
        retain_weight   retain_weight   weight of the preferred completions, >= 0

    Takes completions (B), returns a value for each, (B,). Raises Refusal for arguments out of range.
    """

    needs_reference = False
    learning_rate = 1e-5
    adapter_learning_rate = 1e-4

    def __init__(self, beta: PositiveFloat = 2.5, gamma: FiniteFloat = 0.0, retain_weight: NonNegativeFloat = 1.0):
        """
        Args:
            beta: Scale of the mean log-prob (> 0, 1/nats).
            gamma: Margin (nats a token).
            retain_weight: Weight of preferred completions' mean negative log-likelihood (>= 0).
        """
        self.beta = beta
        self.gamma = gamma
        self.retain_weight = retain_weight

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        means = policy.mean()  # (B,)
        forget = forgetting(self.beta * (-means - self.gamma), self.beta)
        return LossOutput(examples.by_label(-self.retain_weight * means, forget))
