"""Kahneman-Tversky Optimization."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from lightning_bnf.losses.base import Examples, Loss, LossOutput, StepContext, StepLogps, StepPass, logratios
from lightning_bnf.losses.completions import Completions
from lightning_bnf.runtime.arguments import PositiveFloat


class KTO(Loss):
    """Kahneman-Tversky Optimization (Ethayarajh et al. 2024, arXiv 2402.01306).

        L = E[ lambda_D (1 - s(beta (R - z0))) ]   preferred,      R = log pi(y) - log ref(y), summed
        L = E[ lambda_U (1 - s(beta (z0 - R))) ]   dispreferred
        z0 = sg[ max(0, mean over the step of R(x_i, y_j), i != j) ]

        symbol     argument             meaning
        beta       beta                 strength of the tie to the reference, > 0
        lambda_D   desirable_weight     weight of preferred completions, > 0
        lambda_U   undesirable_weight   weight of dispreferred completions, > 0
        z0         kl_estimate          "mismatched": as above;  "none": 0

    z0 estimates the KL divergence from prompts with another row's completions. The partner is fixed for each row when
    the data are planned and the mean is over the whole optimizer step, so neither order nor micro-batches matter; it
    costs a forward pass of policy and reference over as many completions again. Takes completions (B), returns a value
    for each, (B,). Raises Refusal for arguments out of range.
    """

    needs_reference = True
    logratios_only = True
    metric_names = ("kto/kl",)
    step_passes: tuple[StepPass, ...] = ("mismatched",)

    def __init__(
        self,
        beta: PositiveFloat = 0.1,
        desirable_weight: PositiveFloat = 1.0,
        undesirable_weight: PositiveFloat = 1.0,
        kl_estimate: Literal["mismatched", "none"] = "mismatched",
    ):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, 1/nats).
            desirable_weight: Weight of preferred completions, the paper's lambda_D (> 0).
            undesirable_weight: Weight of dispreferred completions, the paper's lambda_U (> 0).
            kl_estimate: Where z0 comes from: mismatched completions, or none (z0 = 0, and no second forward pass).
        """
        self.beta = beta
        self.desirable_weight = desirable_weight
        self.undesirable_weight = undesirable_weight
        self.kl_estimate = kl_estimate
        if kl_estimate == "none":
            self.step_passes = ()

    def statistics(self, passes: Mapping[StepPass, StepLogps], step: StepContext) -> dict[str, Tensor]:
        if "mismatched" not in passes or not len(passes["mismatched"].policy):
            return {}
        return {"kto/kl": passes["mismatched"].logratios.mean().clamp(min=0)}

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        ratios = logratios(policy, reference)  # (B,)
        z0 = step.statistics.get("kto/kl", ratios.new_zeros(())).detach()
        desirable = self.desirable_weight * (self.beta * (z0 - ratios)).sigmoid()  # 1 - s(x) = s(-x)
        undesirable = self.undesirable_weight * (self.beta * (ratios - z0)).sigmoid()
        return LossOutput(examples.by_label(desirable, undesirable), {"kto/kl": z0.expand(len(ratios))})
