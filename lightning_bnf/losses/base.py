"""The contract between losses and everything else.

A loss is a pure function of per-token log-probabilities, labels and pairs. It never sees the model, the config, padding
or the trainer. To add one, write a file with a subclass of `Loss` (`PairLoss`, `TokenLoss`) and a YAML that names it.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_bnf.losses.completions import Completions
from lightning_bnf.runtime.arguments import checked


@dataclass(frozen=True)
class Examples:
    """What the data say about the B completions of a batch.

    label: (B,) +1 for preferred, -1 for dispreferred completions
    pair: (P, 2) indices of the chosen and the rejected completion of each pair, or None where the data are unpaired
    group: (B,) index in 0..G-1 of the data row that each completion belongs to, or None where nobody asks
    columns: name -> (B,) numbers that the data give (`reward`, `win_probability`, ...), NaN where a row has none
    known_sides, known_groups: what `sides` and `groups` give, where it is known already
    """

    label: Tensor
    pair: Tensor | None = None
    group: Tensor | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    known_sides: tuple[Tensor, Tensor] | None = field(default=None, repr=False, compare=False)
    known_groups: int | None = field(default=None, repr=False, compare=False)

    def sides(self) -> tuple[Tensor, Tensor]:
        """Which completions are preferred, and which dispreferred: indices in 0..B-1.

        Found on the CPU, before `map` moves them: how many there are would have to be waited for on another device.
        """
        if self.known_sides is not None:
            return self.known_sides
        return (self.label > 0).nonzero().squeeze(-1), (self.label < 0).nonzero().squeeze(-1)

    def groups(self) -> int:
        """G, the number of groups; found as `sides` are."""
        if self.known_groups is not None:
            return self.known_groups
        return int(self.group.max()) + 1 if self.group is not None and len(self.group) else 0

    def pairs(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Per-completion values (B,) -> those of the chosen and of the rejected completions, (P,) each."""
        assert self.pair is not None, "this loss needs pairs; the data were to be refused earlier"
        return values[self.pair[:, 0]], values[self.pair[:, 1]]

    def chosen_minus_rejected(self, values: Tensor) -> Tensor:
        """Per-completion values (B,) -> the difference within each pair (P,)."""
        chosen, rejected = self.pairs(values)
        return chosen - rejected

    def by_label(self, preferred: Tensor, dispreferred: Tensor) -> Tensor:
        """Take the one tensor for preferred and the other for dispreferred completions, all (B,)."""
        return torch.where(self.label > 0, preferred, dispreferred)

    def swapped(self) -> "Examples":
        """The same with the roles of chosen and rejected, of preferred and dispreferred, exchanged."""
        pair = None if self.pair is None else self.pair.flip(1)
        sides = None if self.known_sides is None else self.known_sides[::-1]
        return replace(self, label=-self.label, pair=pair, known_sides=sides)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Examples":
        """The same with `function` of each tensor, such as a move to another device."""
        pair, group = (None if x is None else function(x) for x in (self.pair, self.group))
        preferred, dispreferred = map(function, self.sides())
        columns = {name: function(values) for name, values in self.columns.items()}
        return Examples(function(self.label), pair, group, columns, (preferred, dispreferred), self.groups())

    def column(self, name: str) -> Tensor:
        """Numbers that the data give for each completion, (B,); NaN where they give none."""
        return self.columns.get(name, torch.full(self.label.shape, torch.nan, device=self.label.device))


@dataclass(frozen=True)
class StepContext:
    """What is known of a whole optimizer step (all micro-batches, all ranks) before its first backward pass.

    pairs, groups, preferred, dispreferred: counts of pairs, of data rows and of completions by label
    preferred_tokens: tokens of all preferred completions
    smallest_length: tokens of the shortest completion
    reference_tolerance: nats by which policy and reference may differ in this run's precision though they are equal
    state: what a loss carries from step to step, by name (`Loss.state`)
    statistics: what `Loss.statistics` made of the step, by name; () or, for this micro-batch's completions, (B,)
    """

    pairs: int
    preferred: int
    dispreferred: int
    preferred_tokens: int
    smallest_length: int
    groups: int = 0
    reference_tolerance: float = 1e-4
    state: Mapping[str, float] = field(default_factory=dict)
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def token_mean(self) -> float:
        """The weight of a preferred token under which the mean over preferred completions is the mean over tokens."""
        return self.preferred / max(self.preferred_tokens, 1)


@dataclass(frozen=True)
class StepLogps:
    """Summed log-probs of M completions of a whole step, over all micro-batches and ranks, without gradients.

    policy: (M,) nats; reference: (M,) or None; examples: labels and pairs of these M
    """

    policy: Tensor
    reference: Tensor | None
    examples: Examples

    @property
    def logratios(self) -> Tensor:
        """log pi(y) - log ref(y), (M,)."""
        assert self.reference is not None, "this loss needs a reference; settings without one were to be refused"
        return self.policy - self.reference


StepPass = Literal["own", "mismatched"]
"""A pass over a step without gradients, before it is trained on: over its own completions, or over mismatched ones
(each prompt with another row's completions)."""

Weigher = Callable[[Tensor, slice], Tensor]
"""(log-probs (n,) of some tokens, which of the batch's tokens they are) -> their weights (n,)."""


@dataclass(frozen=True)
class LossOutput:
    """`value`: one number per example; its sum over the step, divided by `Loss.value_count`, is minimised.

    metrics: detached; name -> values whose mean over the step is the metric.
    """

    value: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Loss(ABC):
    """A loss of token log-probabilities; an example is a pair where `needs_pairs`, else a completion."""

    needs_reference: bool
    fused: bool = False
    """Whether it has a `weigher`, so that the head makes the gradient in its forward pass; budget and plan ask this."""
    logratios_only: bool = False
    """Whether it knows policy and reference by their log-ratios alone: what is added to both changes nothing."""
    raises_preferred: bool = True
    """Whether its first step, where policy and reference are equal, raises every preferred token it learns from."""
    lowers_dispreferred: bool = True
    """Whether its first step lowers dispreferred completions it learns from, and raises none."""
    value_falls: bool = True
    """Whether its value falls while training goes well, so that it is worth watching."""
    needs_pairs: bool = False
    needs_groups: bool = False
    """Whether it needs rows with several samples and a rejected completion."""
    needs_both_labels: bool = False
    """Whether data of one label alone teach it nothing."""
    needs_columns: tuple[str, ...] = ()
    """Names of the numbers (`Examples.columns`) that every completion must have."""
    needs_ordered_rewards: bool = False
    """Whether rows with rewards are dropped, and counted, unless the chosen completion's is the greater."""
    labels: tuple[int, ...] = (1, -1)
    """Labels of the completions that it learns from; training leaves the others out of the batch."""
    metric_names: tuple[str, ...] = ()
    """Names of all metrics that `LossOutput.metrics` may hold."""
    step_passes: tuple[StepPass, ...] = ()
    """Passes without gradients that `statistics` is made of; each costs a forward pass of policy and reference."""
    learning_rate: float = 5e-7
    """Peak learning rate for all weights where a run names none, as published for it or losses like it."""
    adapter_learning_rate: float = 5e-5
    """The same for adapters."""
    state: Mapping[str, float] = {}
    """What it carries from step to step, with the values at the start; checkpoints hold it."""

    def __init_subclass__(cls) -> None:
        if "__init__" in vars(cls):
            checked(cls)  # a loss's arguments are held to their annotated ranges, whoever makes it

    def __repr__(self) -> str:
        names = inspect.signature(type(self)).parameters
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    @property
    def implicit_reward_scale(self) -> float:
        """What the logged `rewards/*` multiply the log-ratio with: `beta` where a loss has one, else 1."""
        return float(getattr(self, "beta", 1.0))

    @abstractmethod
    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        """The value of each example, differentiable in `policy.token_logps`."""

    def weigher(self, completions: Completions, examples: Examples, step: StepContext) -> Weigher | None:
        """Where `fused`: the weights of some of the batch's tokens from their log-probs. Else None.

        `completions` hold the reference's token log-probs, or anything where `needs_reference` is False.
        """
        return None

    def statistics(self, passes: Mapping[StepPass, StepLogps], step: StepContext) -> dict[str, Tensor]:
        """What the loss needs of a whole step, by name: numbers (), or one per completion of the pass "own" (M,)."""
        return {}

    def next_state(self, means: Mapping[str, float], step: StepContext) -> dict[str, float]:
        """The state after a step, from `step.state` and the step's mean metrics."""
        return dict(step.state)

    def value_count(self, step: StepContext) -> int:
        """The number of examples in the whole step: what the summed values are divided by."""
        if self.needs_pairs:
            return step.pairs
        if self.needs_groups:
            return step.groups
        counts = (step.preferred if 1 in self.labels else 0, step.dispreferred if -1 in self.labels else 0)
        return 0 if self.needs_both_labels and 0 in counts else sum(counts)


def logratios(policy: Completions, reference: Completions | None) -> Tensor:
    """log pi(y) - log ref(y) of each completion, summed over its tokens: (B,) nats."""
    assert reference is not None, "this loss needs a reference; settings without one were to be refused earlier"
    return policy.sum() - reference.sum()
