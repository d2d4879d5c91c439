"""Binary Classifier Optimization."""

from collections.abc import Mapping

from torch.nn.functional import logsigmoid

from lightning_bnf.losses.base import Examples, Loss, LossOutput, StepContext, logratios
from lightning_bnf.losses.completions import Completions
from lightning_bnf.runtime.arguments import PositiveFloat


class BCO(Loss):
    """Binary Classifier Optimization (Jung et al. 2024, arXiv 2404.04656): preferred or not, told by the reward.

        L = -E[ log s(label (beta R - d)) ],    R = log pi(y) - log ref(y), summed
        d = mean of beta R over all completions of the steps before this one, 0 in the first

        symbol   argument    meaning
        beta     beta        strength of the tie to the reference, > 0
        d        (state)     the reward shift; kept in checkpoints

    The steps before: so that d needs no pass of its own over the step. Takes completions (B), returns a value for each,
    (B,). Raises Refusal for a beta that is not > 0.
    """

    needs_reference = True
    logratios_only = True
    metric_names = ("bco/reward", "bco/shift")
    state: Mapping[str, float] = {"bco/shift": 0.0, "bco/seen": 0.0}

    def __init__(self, beta: PositiveFloat = 0.01):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
        """
        self.beta = beta

    def next_state(self, means: Mapping[str, float], step: StepContext) -> dict[str, float]:
        before, now = step.state["bco/seen"], self.value_count(step)
        if not now:
            return dict(step.state)
        shift = (before * step.state["bco/shift"] + now * means["bco/reward"]) / (before + now)
        return {"bco/shift": shift, "bco/seen": before + now}

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        rewards = self.beta * logratios(policy, reference)  # (B,)
        shift = step.state["bco/shift"]
        value = -logsigmoid(examples.label * (rewards - shift))
        metrics = {"bco/reward": rewards.detach(), "bco/shift": rewards.new_full(rewards.shape, shift)}
        return LossOutput(value, metrics)
