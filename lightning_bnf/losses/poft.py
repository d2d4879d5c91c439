"""Preference-oriented fine-tuning."""

from torch.nn.functional import logsigmoid

from lightning_bnf.losses.base import Examples, Loss, LossOutput, StepContext
from lightning_bnf.losses.completions import Completions


class PoFT(Loss):
    """Preference-oriented supervised fine-tuning (Fan et al. 2024, arXiv 2412.12865).

        L = -E[ log s(A - mean_j A_j) ],    A = mean token log-prob of the completion

        symbol       argument                       meaning
        mean_j A_j   (data: baseline_mean_logps)    what A is under other, aligned models: their average, nats a token

    The policy is to like a demonstration better than those models do. No arguments, no reference; dispreferred
    completions are not used. Takes completions (B), returns a value for each preferred one.
    """

    needs_reference = False
    needs_columns = ("baseline_mean_logps",)
    labels = (1,)
    learning_rate = 2e-5
    adapter_learning_rate = 2e-4

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        lead = policy.mean() - examples.column("baseline_mean_logps")
        return LossOutput(-logsigmoid(lead[examples.sides()[0]]))
