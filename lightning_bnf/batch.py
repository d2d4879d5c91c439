"""What travels from the data to the policy: an optimizer step, cut into micro-batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from lightning_bnf.losses.base import Examples, StepContext
from lightning_bnf.losses.completions import Completions

IN_COMMON = -1
"""In `documents` of a model's inputs: of tokens that all documents of their row see."""


class Document(NamedTuple):
    """A prompt and its completions, each of which sees the prompt and itself; or a sequence alone, all of it `prompt`.

    start: where it begins in its model row; prompt, completions: tokens; common: tokens at the beginning of its row, a
    document of their own, that it sees before its prompt
    """

    row: int
    start: int
    prompt: int
    completions: tuple[int, ...] = ()
    common: int = 0

    @property
    def stop(self) -> int:
        """Where it ends in its model row."""
        return self.start + self.prompt + sum(self.completions)


@dataclass(frozen=True)
class Sequences:
    """Who sees whom among the flattened (rows * T) tokens, for attention that computes nothing else.

    A document's first sequence is its prompt with the first completion, causal; each further completion is one whose
    keys are the prompt's once more and its own; before these come the keys of tokens that all documents have in common.
    The last queries of a sequence see all of its keys.

    query_ends, key_ends: (S + 1,) int32, 0 first, where each sequence's queries end, and its keys
    keys: (K,) the token that each key is of; None where all tokens are keys once
    copies: (R, rows * T) which of the keys are each token's; K, one behind the last, for none
    common: (C, P) which of the keys are those of the first P tokens in sequences of other documents
    longest_query, longest_key: tokens of a sequence
    """

    documents: tuple[Document, ...]
    query_ends: Tensor
    key_ends: Tensor
    keys: Tensor | None
    copies: Tensor | None
    common: Tensor | None
    longest_query: int
    longest_key: int

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same with `function` of each tensor."""
        mapped: dict[str, Any] = {name: function(getattr(self, name)) for name in ("query_ends", "key_ends")}
        repeated = {name: getattr(self, name) for name in ("keys", "copies", "common")}
        mapped |= {name: function(value) for name, value in repeated.items() if value is not None}
        return replace(self, **mapped)


@dataclass(frozen=True)
class MicroBatch:
    """B completions as the model's inputs, and where in them the N completion tokens are.

    inputs: what the model's backbone takes, by name; `input_ids` (rows, T) among them, and where completions share a
        prompt `segments` (rows, T), which `policies.attention.sees` explains
    position: (N,) index, into the flattened (rows * T), of the hidden state that predicts each token
    target: (N,) the token ids
    completion: (N,) index in 0..B-1 of the completion that each token belongs to
    length: (B,) tokens of each completion
    examples: labels (B,), pairs (P, 2), and what else the data say of the completions
    row_ids: for each completion the id of its data row, for messages
    keys: for each completion its key in the reference cache
    sequences: who sees whom, where model rows hold several sequences
    """

    inputs: dict[str, Tensor]
    position: Tensor
    target: Tensor
    completion: Tensor
    length: Tensor
    examples: Examples
    row_ids: tuple[str, ...]
    keys: Sequence[bytes]
    sequences: Sequences | None = None

    def completions(self, token_logps: Tensor, entropy: Tensor | None = None) -> Completions:
        """Token log-probs (N,) of any model, with these completions' structure."""
        return Completions(token_logps, self.completion, self.length, entropy)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """All tensors on `device`."""
        return self.map(lambda value: value.to(device, non_blocking=non_blocking))

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same with `function` of each tensor."""
        mapped: dict[str, Any] = {
            name: function(getattr(self, name)) for name in ("position", "target", "completion", "length")
        }
        inputs = {name: function(value) for name, value in self.inputs.items()}
        mapped["sequences"] = None if self.sequences is None else self.sequences.map(function)
        return replace(self, inputs=inputs, examples=self.examples.map(function), **mapped)


class Step:
    """One optimizer step of one rank: its micro-batches, and the context of the whole step over all ranks.

    `mismatched`: micro-batches of mismatched completions, for losses with a pass over them. No dataclass: Lightning
    would walk into one and cast what it finds there to the run's precision.
    """

    def __init__(
        self, micro_batches: tuple[MicroBatch, ...], context: StepContext, mismatched: tuple[MicroBatch, ...] = ()
    ):
        self.micro_batches = micro_batches
        self.context = context
        self.mismatched = mismatched

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Step":
        """All tensors on `device`. A GPU is not waited for, though Lightning does not ask for that: it works on while
        what lies in pinned memory is copied."""
        non_blocking = non_blocking or torch.device(device).type == "cuda"
        return self.map(lambda value: value.to(device, non_blocking=non_blocking))

    def map(self, function: Callable[[Tensor], Tensor]) -> "Step":
        """The same with `function` of each tensor."""
        own, others = (
            tuple(batch.map(function) for batch in batches) for batches in (self.micro_batches, self.mismatched)
        )
        return Step(own, self.context, others)
