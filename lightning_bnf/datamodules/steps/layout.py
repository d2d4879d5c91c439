"""Layouts: how completions are laid out as a model's inputs. Losses and metrics lie above and cannot tell.

padded          a model row for each completion, its prompt first
packed          one model row for all completions, each with its prompt, one behind the other, without padding
shared_prompt   a model row for each data row: the prompt's tokens once, all its completions behind it, each of which
                sees the prompt and itself
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.losses.base import Examples
from lightning_bnf.runtime.fingerprints import content_key


class Layout(NamedTuple):
    """batch: (rows, labels) -> the micro-batch of their completions with one of the labels.
    lengths: (row, labels) -> tokens of each model row that the data row takes, or of each sequence where `packed`, that
    is where all sequences lie in one model row and nothing is padded."""

    batch: Callable[[Sequence[TokenizedRow], Sequence[int]], MicroBatch]
    lengths: Callable[[TokenizedRow, Sequence[int]], tuple[int, ...]]
    packed: bool = False


class PlannedBatch(NamedTuple):
    """All completions of some rows, to be laid out when they are needed."""

    rows: Sequence[TokenizedRow]
    layout: Layout

    def content_keys(self) -> list[bytes]:
        """The completions' keys in the reference cache."""
        return [_key(row, completion) for row in self.rows for completion in row.completions]

    def batch(self) -> MicroBatch:
        """The completions as a model's inputs."""
        return self.layout.batch(self.rows, (1, -1))


def _key(row: TokenizedRow, completion: TokenizedCompletion) -> bytes:
    return content_key(row.prompt_ids, completion.ids, completion.completion_mask)


class _Placed(NamedTuple):
    """A completion in a model row: the place of its first token, and of the token before it (the prompt's last)."""

    row: TokenizedRow
    completion: TokenizedCompletion
    model_row: int
    first: int
    before: int


def taken(row: TokenizedRow, labels: Sequence[int]) -> list[TokenizedCompletion]:
    """The row's completions that have one of the labels."""
    return [completion for completion in row.completions if completion.label in labels]


def padded(rows: Sequence[TokenizedRow], labels: Sequence[int] = (1, -1)) -> MicroBatch:
    """One model row for each completion, prompt first, padded on the right.

    Padding has token id 0, which no mask relies on: where completion tokens are follows from lengths alone. Only
    completions with one of `labels` are taken; a row whose chosen and rejected completion are both there is a pair.
    """
    placed: list[_Placed] = []
    for row in rows:
        start = len(row.prompt_ids)
        placed += [_Placed(row, c, len(placed) + i, start, start - 1) for i, c in enumerate(taken(row, labels))]
    ids = _stacked([p.row.prompt_ids + p.completion.ids for p in placed])
    lengths = torch.tensor([len(p.row.prompt_ids) + len(p.completion.ids) for p in placed] or [1])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    return _micro_batch({"input_ids": ids, "attention_mask": mask.long()}, placed)


def packed(rows: Sequence[TokenizedRow], labels: Sequence[int] = (1, -1)) -> MicroBatch:
    """One model row of all completions, each behind its own prompt.

    Position ids begin anew with each, which is how transformers tells them apart: its masks, sliding windows and
    variable-length attention kernels follow from them.
    """
    placed: list[_Placed] = []
    ids: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    for row in rows:
        for completion in taken(row, labels):
            start = len(ids) + len(row.prompt_ids)
            placed.append(_Placed(row, completion, 0, start, start - 1))
            sequence = row.prompt_ids + completion.ids
            ids += sequence
            positions += range(len(sequence))
            lengths.append(len(sequence))
    inputs = {"input_ids": _stacked([ids or [0]]), "position_ids": _stacked([positions or [0]])}
    return _micro_batch(inputs, placed, tuple(lengths))


def shared_prompt(rows: Sequence[TokenizedRow], labels: Sequence[int] = (1, -1)) -> MicroBatch:
    """One model row for each data row: the prompt once, then its completions, blind to each other.

    Every completion's position ids go on from the prompt's. `segments` are 0 for the prompt, k for the k-th completion
    and -1 for padding; the policy makes of them the mask that its attention takes.
    """
    placed: list[_Placed] = []
    sequences: list[list[int]] = []
    segments: list[list[int]] = []
    positions: list[list[int]] = []
    for row in rows:
        start = len(row.prompt_ids)
        ids, segment, position = list(row.prompt_ids), [0] * start, list(range(start))
        for k, completion in enumerate(taken(row, labels), start=1):
            placed.append(_Placed(row, completion, len(sequences), len(ids), start - 1))
            ids += completion.ids
            segment += [k] * len(completion.ids)
            position += range(start, start + len(completion.ids))
        if segment[-1:] > [0]:
            sequences.append(ids)
            segments.append(segment)
            positions.append(position)
    inputs = {
        "input_ids": _stacked(sequences),
        "segments": _stacked(segments, padding=-1),
        "position_ids": _stacked(positions),
    }
    return _micro_batch(inputs, placed)


def _padded_lengths(row: TokenizedRow, labels: Sequence[int]) -> tuple[int, ...]:
    return tuple(len(row.prompt_ids) + len(completion.ids) for completion in taken(row, labels))


def _shared_lengths(row: TokenizedRow, labels: Sequence[int]) -> tuple[int, ...]:
    lengths = [len(completion.ids) for completion in taken(row, labels)]
    return (len(row.prompt_ids) + sum(lengths),) if lengths else ()


PADDED = Layout(padded, _padded_lengths)
PACKED = Layout(packed, _padded_lengths, packed=True)
SHARED_PROMPT = Layout(shared_prompt, _shared_lengths)


def _stacked(sequences: Sequence[Sequence[int]], padding: int = 0) -> Tensor:
    """(rows, longest), padded on the right.

    Without any sequence a single token: a rank without completions must not skip the model, whose collectives the
    others wait in.
    """
    width = max(map(len, sequences), default=1)
    stacked = torch.full((max(len(sequences), 1), width), padding, dtype=torch.long)
    for i, sequence in enumerate(sequences):
        stacked[i, : len(sequence)] = torch.tensor(sequence)
    return stacked


def _micro_batch(inputs: dict[str, Tensor], placed: Sequence[_Placed], lengths: tuple[int, ...] = ()) -> MicroBatch:
    """The inputs with the places of all trained tokens; `lengths` of sequences that lie in one row."""
    width = inputs["input_ids"].shape[1]
    position: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    for i, p in enumerate(placed):
        for t, (token, trained) in enumerate(zip(p.completion.ids, p.completion.completion_mask)):
            if trained:  # the hidden state before a token predicts it
                position.append(p.model_row * width + (p.before if t == 0 else p.first + t - 1))
                target.append(token)
                owner.append(i)
    pairs = [
        (i, i + 1)
        for i, (one, other) in enumerate(pairwise(placed))
        if one.row is other.row and one.row.pairs and one.completion.label > other.completion.label
    ]
    order = {row: i for i, row in enumerate(dict.fromkeys(id(p.row) for p in placed))}
    return MicroBatch(
        inputs=inputs,
        position=torch.tensor(position, dtype=torch.long),
        target=torch.tensor(target, dtype=torch.long),
        completion=torch.tensor(owner, dtype=torch.long),
        length=torch.tensor([sum(p.completion.completion_mask) for p in placed], dtype=torch.long),
        examples=Examples(
            label=torch.tensor([p.completion.label for p in placed], dtype=torch.long),
            pair=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2) if pairs or not placed else None,
            group=torch.tensor([order[id(p.row)] for p in placed], dtype=torch.long),
            columns={
                name: torch.tensor([p.completion.numbers.get(name, math.nan) for p in placed], dtype=torch.float64)
                for name in sorted({name for p in placed for name in p.completion.numbers})
            },
        ),
        row_ids=tuple(p.row.id for p in placed),
        keys=tuple(_key(p.row, p.completion) for p in placed),
        sequence_lengths=lengths,
    )
