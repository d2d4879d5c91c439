"""Alignment via Optimal Transport: the policy's distribution of margins or rewards is to dominate another."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.base import Examples, Loss, LossOutput, StepContext, StepLogps, StepPass, logratios
from lightning_bnf.losses.completions import Completions
from lightning_bnf.runtime.arguments import PositiveFloat


class AOT(Loss):
    """Alignment via Optimal Transport, paired (Melnyk et al. 2024, arXiv 2406.05882).

        L = -1/P sum_k log s(beta (u_(k) - v_(k)))
        u_(k), v_(k) = the k-th smallest S_w - S_l in the whole step, of the policy and of the reference (S: summed)

        symbol   argument   meaning
        beta     beta       scale of the difference, > 0

    Every pair is compared with the reference's margin of the same rank. The ranks are those of the whole optimizer step
    and cost a forward pass of the policy before it. Takes pairs (P), returns a value for each, (P,).
    Raises Refusal for a beta that is not > 0.
    """

    needs_reference = True
    needs_pairs = True
    step_passes: tuple[StepPass, ...] = ("own",)

    def __init__(self, beta: PositiveFloat = 0.01):
        """
        Args:
            beta: Scale of the difference of margins (> 0, 1/nats).
        """
        self.beta = beta

    def statistics(self, passes: Mapping[StepPass, StepLogps], step: StepContext) -> dict[str, Tensor]:
        own = passes["own"]
        target = torch.zeros_like(own.policy)  # (M,), at the place of each pair's chosen completion
        assert own.examples.pair is not None, "this loss needs pairs; the data were to be refused earlier"
        margins = own.examples.chosen_minus_rejected(own.policy)  # (P,)
        of_reference = margins - own.examples.chosen_minus_rejected(own.logratios)
        target[own.examples.pair[:, 0]] = of_reference.sort().values[margins.argsort().argsort()]
        return {"aot/target": target}

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        target, _ = examples.pairs(step.statistics["aot/target"])
        return LossOutput(-logsigmoid(self.beta * (examples.chosen_minus_rejected(policy.sum()) - target)))


class AOTUnpaired(Loss):
    """Alignment via Optimal Transport, unpaired (Melnyk et al. 2024, arXiv 2406.05882).

        L = -1/K sum_k log s(beta (u_(k) - v_(k)))
        u_(k), v_(k) = the k-th smallest R of the step's preferred and of its dispreferred completions, R = summed
                       log-ratio

        symbol   argument   meaning
        beta     beta       scale of the difference, > 0

    With unequal counts a completion is compared with the other label's quantile at its own level, and both labels weigh
    the same; with equal counts this is the sum above, gradient included. A step of one label only teaches nothing. The
    ranks cost a forward pass of policy and reference over the step. Takes completions (B), returns a value for each,
    (B,). Raises Refusal for a beta that is not > 0.
    """

    needs_reference = True
    logratios_only = True
    needs_both_labels = True
    step_passes: tuple[StepPass, ...] = ("own",)

    def __init__(self, beta: PositiveFloat = 0.01):
        """
        Args:
            beta: Scale of the difference of log-ratios (> 0, 1/nats).
        """
        self.beta = beta

    def statistics(self, passes: Mapping[StepPass, StepLogps], step: StepContext) -> dict[str, Tensor]:
        ratios, label = passes["own"].logratios, passes["own"].examples.label
        partner = torch.zeros_like(ratios)
        if 0 < step.preferred < len(label):  # how many there are is known: a device need not be asked
            order = label.argsort(descending=True, stable=True)
            preferred, dispreferred = order[: step.preferred], order[step.preferred :]
            partner[preferred] = same_level(ratios[preferred], ratios[dispreferred])
            partner[dispreferred] = same_level(ratios[dispreferred], ratios[preferred])
        return {"aot/partner": partner}

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        difference = examples.label * (logratios(policy, reference) - step.statistics["aot/partner"])
        value = -logsigmoid(self.beta * difference)  # (B,)
        # Each difference stands here twice, for either of its two ends, the other one held fixed: so it counts half,
        # and its gradient, of which each end sees its own part, whole.
        counts = step.preferred * (examples.label > 0) + step.dispreferred * (examples.label < 0)
        share = (step.preferred + step.dispreferred) / (2 * counts)
        return LossOutput(share * (2 * value - value.detach()))


def same_level(values: Tensor, others: Tensor) -> Tensor:
    """For each of `values` (n,) the quantile of `others` (m,) at its own level: with n = m the one of the same rank."""
    level = (values.argsort().argsort() + 0.5) / len(values)
    place = (level * len(others) - 0.5).clamp(0, len(others) - 1)
    ordered, below = others.sort().values, place.floor().long()
    return torch.lerp(ordered[below], ordered[place.ceil().long()], (place - below).to(ordered.dtype))
