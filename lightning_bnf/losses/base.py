"""The contract between losses and everything else.

A loss is a pure function of per-token log-probabilities, labels and pairs. It never sees the model, the config, padding
or the trainer. To add one, write a file with a subclass of `Loss` (or `TokenLoss`) and a YAML that names it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lightning_bnf.logps import Completions


@dataclass(frozen=True)
class Examples:
    """What the data say about the B completions of a batch.

    label: (B,) +1 for preferred, -1 for dispreferred completions
    pair: (P, 2) rows of the chosen and the rejected completion of each pair, or None where the data are unpaired
    """

    label: Tensor
    pair: Tensor | None = None

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


@dataclass(frozen=True)
class StepFacts:
    """What is known of a whole optimizer step (all micro-batches, all ranks) before any of it is computed.

    pairs, preferred, dispreferred: counts of pairs and of completions by label
    preferred_tokens: tokens of all preferred completions
    smallest_length: tokens of the shortest completion
    reference_tolerance: nats by which policy and reference may differ in this run's precision though they are equal
    """

    pairs: int
    preferred: int
    dispreferred: int
    preferred_tokens: int
    smallest_length: int
    reference_tolerance: float = 1e-4


Weigher = Callable[[Tensor, slice], Tensor]
"""(log-probs (n,) of some tokens, which of the batch's tokens they are) -> their weights (n,)."""


@dataclass(frozen=True)
class LossOutput:
    """One value per example, and detached metrics: name -> values whose mean over the step is the metric."""

    value: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Loss(ABC):
    """A loss of token log-probabilities; an example is a pair where `needs_pairs`, else a completion."""

    needs_reference: ClassVar[bool]
    needs_pairs: ClassVar[bool] = False
    labels: ClassVar[tuple[int, ...]] = (1, -1)
    """Labels of the completions that it learns from; training leaves the others out of the batch."""
    metric_names: ClassVar[tuple[str, ...]] = ()
    """Names of all metrics that `LossOutput.metrics` may hold."""

    @property
    def reward_scale(self) -> float:
        """What the logged `rewards/*` multiply the log-ratio with: `beta` where a loss has one, else 1."""
        return 1.0

    @abstractmethod
    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepFacts
    ) -> LossOutput:
        """The value of each example, differentiable in `policy.token`."""

    def weigher(self, completions: Completions, examples: Examples, step: StepFacts) -> Weigher | None:
        """For token losses: the weights of some of the batch's tokens from their log-probs. Else None.

        `completions` hold the reference's token log-probs, or anything where `needs_reference` is False.
        """
        return None

    def example_count(self, step: StepFacts) -> int:
        """The number of examples in the whole step: what the summed values are divided by."""
        if self.needs_pairs:
            return step.pairs
        return (step.preferred if 1 in self.labels else 0) + (step.dispreferred if -1 in self.labels else 0)


def logratios(policy: Completions, reference: Completions | None) -> Tensor:
    """log pi(y) - log ref(y) of each completion, summed over its tokens: (B,) nats."""
    assert reference is not None, "this loss needs a reference; settings without one were to be refused earlier"
    return policy.sum() - reference.sum()


@dataclass(frozen=True)
class Side:
    """One side of P pairs, all (P,): summed and mean token log-probs of the policy in nats, tokens, and the log-ratio
    of policy to reference (NaN without a reference)."""

    logps: Tensor
    mean_logps: Tensor
    length: Tensor
    logratios: Tensor


@dataclass(frozen=True)
class Pairs:
    """P pairs, as the pairwise losses' papers speak of them."""

    chosen: Side
    rejected: Side

    @property
    def margin(self) -> Tensor:
        """Chosen minus rejected log-ratio, (P,)."""
        return self.chosen.logratios - self.rejected.logratios

    @property
    def mean_margin(self) -> Tensor:
        """Chosen minus rejected log-ratio a token, (P,)."""
        return self.chosen.logratios / self.chosen.length - self.rejected.logratios / self.rejected.length


class PairLoss(Loss):
    """A loss of sequence log-probs of pairs: one value a pair."""

    needs_pairs = True

    @abstractmethod
    def pair_loss(self, pairs: Pairs) -> Tensor:
        """The value of each pair, (P,), differentiable."""

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepFacts
    ) -> LossOutput:
        logps = policy.sum()
        # Without a reference the log-ratios are not there to be used: NaN would show in every value that did.
        ratios = torch.full_like(logps, torch.nan) if reference is None else logratios(policy, reference)
        by_side = zip(*(examples.pairs(x) for x in (logps, policy.mean(), policy.length, ratios)))
        return LossOutput(self.pair_loss(Pairs(*(Side(*side) for side in by_side))))


@dataclass(frozen=True)
class Tokens:
    """Some of a batch's completion tokens, all (n,): log-probs of policy and reference, label and length of their
    completions."""

    policy: Tensor
    reference: Tensor | None
    label: Tensor
    length: Tensor


class TokenLoss(Loss):
    """A loss -sum_t sg[weight_t] log pi(y_t): each token's weight is known once its own log-probability is.

    So the head can make the gradient while it still holds the token's logits (three matrix products instead of four).
    """

    @abstractmethod
    def token_weight(self, tokens: Tokens, step: StepFacts) -> Tensor:
        """The weight of each token, (n,), elementwise; the sign is the label's. No gradient flows through it."""

    def token_metrics(self, tokens: Tokens, step: StepFacts) -> dict[str, Tensor]:
        """Detached per-token metrics, by name."""
        return {}

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepFacts
    ) -> LossOutput:
        tokens = _by_token(policy.detached(), reference, examples)
        with torch.no_grad():
            weight = self.token_weight(tokens, step)
            metrics = self.token_metrics(tokens, step)
        value = -policy.sum_of(weight * policy.token)  # (B,)
        return LossOutput(value[torch.isin(examples.label, examples.label.new_tensor(self.labels))], metrics)

    def weigher(self, completions: Completions, examples: Examples, step: StepFacts) -> Weigher | None:
        every = _by_token(completions, completions, examples)

        def weigh(token: Tensor, where: slice) -> Tensor:
            assert every.reference is not None
            others = (every.reference[where], every.label[where], every.length[where])
            return self.token_weight(Tokens(token, *(other.to(token.dtype) for other in others)), step)

        return weigh


def _by_token(policy: Completions, reference: Completions | None, examples: Examples) -> Tokens:
    """Lay everything that a token loss reads out by token."""
    return Tokens(
        policy=policy.token,
        reference=None if reference is None else reference.token,
        label=policy.per_token(examples.label).to(policy.token.dtype),
        length=policy.per_token(policy.length).to(policy.token.dtype),
    )
