"""Weighted sums of losses."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_bnf.losses.base import Examples, Loss, LossOutput, StepContext, StepLogps, StepPass, Weigher
from lightning_bnf.losses.completions import Completions
from lightning_bnf.losses.outputs import check_declared, checked_output
from lightning_bnf.runtime.arguments import NonNegativeFloat, checked
from lightning_bnf.runtime.refusal import Refusal


@checked
@dataclass(frozen=True)
class Term:
    """A loss and its weight.

    Args:
        loss: The loss.
        weight: What its mean over its examples is multiplied with (>= 0).
    """

    loss: Loss
    weight: NonNegativeFloat = 1.0


class Sum(Loss):
    """A weighted sum of losses, each averaged over its own examples: pairs, completions, or preferred ones only.

        L = sum_k weight_k E_k[ loss_k ]

        symbol   argument   meaning
        k        terms      the losses with their weights; every class once

    It needs whatever one of its losses needs, and takes the way of token losses if all are. Its `rewards/*` are the
    first term's. BNF with a pairwise term is the combination that the BNF paper names as future work. Returns values
    whose sum over the step, divided by `value_count`, is L. Raises Refusal for no terms and for a class given twice.
    """

    def __init__(self, terms: Sequence[Term]):
        """
        Args:
            terms: The losses with their weights.
        """
        self.terms = tuple(terms)
        names = [type(term.loss).__name__ for term in self.terms]
        if not names or len(set(names)) < len(names):
            raise Refusal(f"terms must be one or more losses, every class once, got {names}")
        losses = [check_declared(term.loss) for term in self.terms]
        self.fused = all(loss.fused for loss in losses)
        self.needs_reference = any(loss.needs_reference for loss in losses)
        self.logratios_only = all(loss.logratios_only for loss in losses)
        self.value_falls = all(loss.value_falls for loss in losses)
        self.needs_pairs = any(loss.needs_pairs for loss in losses)
        self.needs_groups = any(loss.needs_groups for loss in losses)
        self.needs_both_labels = any(loss.needs_both_labels for loss in losses)
        self.needs_ordered_rewards = any(loss.needs_ordered_rewards for loss in losses)
        self.needs_columns = _each_once(loss.needs_columns for loss in losses)
        self.labels = _each_once(loss.labels for loss in losses)
        self.step_passes = _each_once(loss.step_passes for loss in losses)
        self.metric_names = _each_once((f"loss/{name}", *loss.metric_names) for name, loss in zip(names, losses))
        self.state: Mapping[str, float] = {k: v for loss in losses for k, v in loss.state.items()}

    @property
    def implicit_reward_scale(self) -> float:
        return self.terms[0].loss.implicit_reward_scale

    def value_count(self, step: StepContext) -> int:
        return max(term.loss.value_count(step) for term in self.terms)

    def statistics(self, passes: Mapping[StepPass, StepLogps], step: StepContext) -> dict[str, Tensor]:
        return {name: found for term in self.terms for name, found in term.loss.statistics(passes, step).items()}

    def next_state(self, means: Mapping[str, float], step: StepContext) -> dict[str, float]:
        changed = dict(step.state)
        for term in self.terms:
            mine = term.loss.next_state(means, step)
            changed |= {name: mine[name] for name in term.loss.state}
        return changed

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        values: list[Tensor] = [policy.token_logps.new_zeros(0)]
        metrics: dict[str, Tensor] = {}
        for term, factor in self._factors(step):
            output = checked_output(term.loss, term.loss(policy, reference, examples, step), examples)
            values.append(factor * output.value)
            metrics |= {**output.metrics, f"loss/{type(term.loss).__name__}": output.value.detach()}
        return LossOutput(torch.cat(values), metrics)

    def weigher(self, completions: Completions, examples: Examples, step: StepContext) -> Weigher | None:
        if not self.fused:
            return None
        weighers: list[tuple[Weigher, float]] = []
        for term, factor in self._factors(step):
            weigh = term.loss.weigher(completions, examples, step)
            assert weigh is not None, f"{term.loss!r} is declared as fused"
            weighers.append((weigh, factor))

        def summed(token: Tensor, where: slice) -> Tensor:
            return torch.stack([factor * weigh(token, where) for weigh, factor in weighers]).sum(0)

        return summed if weighers else None

    def _factors(self, step: StepContext) -> list[tuple[Term, float]]:
        """The terms that have examples in the step, and what each of their values is multiplied with."""
        count = self.value_count(step)
        with_examples = [term for term in self.terms if term.loss.value_count(step)]
        return [(term, term.weight * count / term.loss.value_count(step)) for term in with_examples]


def _each_once(listed: Iterable[Iterable[Any]]) -> tuple:
    return tuple(dict.fromkeys(name for names in listed for name in names))
