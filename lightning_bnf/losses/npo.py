"""Negative Preference Optimization."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.base import Examples, Loss, LossOutput, StepContext, logratios
from lightning_bnf.losses.completions import Completions
from lightning_bnf.runtime.arguments import NonNegativeFloat, PositiveFloat


class NPO(Loss):
    """Negative Preference Optimization (Zhang et al. 2024, arXiv 2404.05868, Eq. 3), for unlearning dispreferred
    completions.

        L = E[ -(2 / beta) log s(-beta R) ]   dispreferred (forget),    R = log pi(y) - log ref(y), summed
        L = E[ -retain_weight A ]             preferred (retain),       A = mean token log-prob

        symbol          argument        meaning
        beta            beta            strength of the tie to the reference, > 0; as beta -> 0 the gradient becomes
                                        gradient ascent on the NLL
        retain_weight   retain_weight   weight of the preferred completions (NPO + gradient descent), >= 0

    Takes completions (B), returns a value for each, (B,). Raises Refusal for arguments out of range.
    """

    needs_reference = True
    learning_rate = 1e-5
    adapter_learning_rate = 1e-4

    def __init__(self, beta: PositiveFloat = 0.1, retain_weight: NonNegativeFloat = 1.0):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
            retain_weight: Weight of preferred completions' mean negative log-likelihood (>= 0).
        """
        self.beta = beta
        self.retain_weight = retain_weight

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        forget = forgetting(-self.beta * logratios(policy, reference), self.beta)  # (B,)
        return LossOutput(examples.by_label(-self.retain_weight * policy.mean(), forget))


def forgetting(score: Tensor, beta: float) -> Tensor:
    """-(2 / beta) log s(score): what NPO and SimNPO make of a completion that is to be forgotten. Shape of `score`."""
    return -(2 / beta) * logsigmoid(score)
