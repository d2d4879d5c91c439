"""Layouts: how completions are laid out as a model's inputs. Losses and metrics lie above and cannot tell.

padded          a model row for each completion, its prompt first
packed          one model row for all completions, each with its prompt, one behind the other, without padding
shared_prompt   a model row for each data row: the prompt's tokens once, all its completions behind it, each of which
                sees the prompt and itself
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import RowArrays, as_rows
from lightning_bnf.losses.base import Examples
from lightning_bnf.runtime.fingerprints import content_key

Row = TokenizedRow | RowArrays


class Layout(NamedTuple):
    """batch: (rows, labels) -> the micro-batch of their completions with one of the labels.
    lengths: (row, labels) -> tokens of each model row that the data row takes, or of each sequence where `packed`, that
    is where all sequences lie in one model row and nothing is padded."""

    batch: Callable[[Sequence[Row], Sequence[int]], MicroBatch]
    lengths: Callable[[Row, Sequence[int]], tuple[int, ...]]
    packed: bool = False


class PlannedBatch(NamedTuple):
    """All completions of some rows, which are read and laid out when they are needed."""

    rows: Sequence[TokenizedRow]
    layout: Layout

    def content_keys(self) -> Sequence[bytes]:
        """The completions' keys in the reference cache."""
        return _Completions(self._arrays(), (1, -1)).keys()

    def batch(self) -> MicroBatch:
        """The completions as a model's inputs."""
        return self.layout.batch(self._arrays(), (1, -1))

    def _arrays(self) -> list[RowArrays]:
        rows = as_rows(self.rows)
        return [rows.arrays(i) for i in range(len(rows))]


class _Keys(Sequence[bytes]):
    """The completions' keys, hashed when the first is asked for: few references do."""

    def __init__(self, contents: Sequence[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]]):
        self._contents = contents
        self._keys: tuple[bytes, ...] | None = None

    def __len__(self) -> int:
        return len(self._contents)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[bytes, ...]: ...
    def __getitem__(self, index: int | slice) -> bytes | tuple[bytes, ...]:
        if self._keys is None:
            self._keys = tuple(content_key(*content) for content in self._contents)
        return self._keys[index]


class _Completions:
    """The B completions of some rows that have one of the labels: what every layout places.

    prompts: the token ids of each one's prompt; length, label, row: (B,) its tokens, its label, and which of the rows
    it belongs to; ids, trained: (L,) the tokens of all, one behind the other; stop, slices: where among them each ends,
    and lies
    """

    def __init__(self, rows: Sequence[Row], labels: Sequence[int]):
        self.rows: list[RowArrays] = []
        for row in map(RowArrays.of, rows):
            kept = [label in labels for label in row.label.tolist()]
            if any(kept):
                self.rows.append(row if all(kept) else row.only(np.array(kept)))
        counts = [len(row.label) for row in self.rows]
        self.row = np.repeat(np.arange(len(counts)), counts)
        self.length, self.label, self.ids, self.trained = (
            np.concatenate([getattr(row, name) for row in self.rows] or [np.zeros(0, kind)])
            for name, kind in (("length", int), ("label", int), ("ids", np.int32), ("trained", bool))
        )
        self.stop = self.length.cumsum()
        self.prompts = [row.prompt for row, count in zip(self.rows, counts) for _ in range(count)]
        self.prompt_length = np.array([len(prompt) for prompt in self.prompts], dtype=int)
        self.slices = [slice(stop - length, stop) for stop, length in zip(self.stop.tolist(), self.length.tolist())]

    def keys(self) -> _Keys:
        """Of each completion."""
        answers = ((self.ids[part], self.trained[part]) for part in self.slices)
        return _Keys([(prompt, *answer) for prompt, answer in zip(self.prompts, answers)])

    def pairs(self) -> NDArray[np.int64] | None:
        """(P, 2) chosen and rejected completions, or None where there are completions and none of them in a pair."""
        if not self.rows:
            return np.zeros((0, 2), dtype=int)
        whole = np.array([row.pairs for row in self.rows])[self.row[:-1]]
        chosen = np.flatnonzero(whole & (self.row[:-1] == self.row[1:]) & (self.label[:-1] > self.label[1:]))
        return chosen[:, None] + (0, 1) if len(chosen) else None

    def micro_batch(
        self, inputs: dict[str, Tensor], start: NDArray[np.int64], before: NDArray[np.int64], packed: bool = False
    ) -> MicroBatch:
        """The inputs with the places of all trained tokens.

        start, before: (B,) places, in the flattened inputs, of each completion's first token and of the token before
        it, the prompt's last; packed: whether all sequences lie in one model row
        """
        completion = np.repeat(np.arange(len(self.length)), self.length)
        first = self.stop - self.length  # (B,) in `ids`
        # The hidden state before a token predicts it.
        position = np.arange(len(self.ids)) + (start - first - 1)[completion]
        position[first[self.length > 0]] = before[self.length > 0]
        target = self.ids.astype(np.int64)
        if not self.trained.all():
            position, target, completion = position[self.trained], target[self.trained], completion[self.trained]
        numbers = [numbers for row in self.rows for numbers in row.numbers]
        pairs = self.pairs()
        return MicroBatch(
            inputs=inputs,
            position=torch.from_numpy(position),
            target=torch.from_numpy(target),
            completion=torch.from_numpy(completion),
            length=torch.from_numpy(np.bincount(completion, minlength=len(self.length))),
            examples=Examples(
                label=torch.from_numpy(self.label),
                pair=None if pairs is None else torch.from_numpy(pairs),
                group=torch.from_numpy(self.row),
                columns={
                    name: torch.tensor([given.get(name, torch.nan) for given in numbers], dtype=torch.float64)
                    for name in sorted({name for given in numbers for name in given})
                },
            ),
            row_ids=tuple(self.rows[row].id for row in self.row),
            keys=self.keys(),
            sequence_lengths=tuple((self.prompt_length + self.length).tolist()) if packed else (),
        )


def padded(rows: Sequence[Row], labels: Sequence[int] = (1, -1)) -> MicroBatch:
    """One model row for each completion, prompt first, padded on the right.

    Padding has token id 0, which no mask relies on: where completion tokens are follows from lengths alone. Only
    completions with one of `labels` are taken; a row whose chosen and rejected completion are both there is a pair.
    """
    taken = _Completions(rows, labels)
    lengths = taken.prompt_length + taken.length
    ids = _empty(lengths)
    for line, prompt, part, length in zip(ids, taken.prompts, taken.slices, lengths):
        line[: len(prompt)], line[len(prompt) : length] = prompt, taken.ids[part]
    mask = np.arange(ids.shape[1]) < (lengths if len(lengths) else np.ones(1))[:, None]
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
    start = np.arange(len(lengths)) * ids.shape[1] + taken.prompt_length
    return taken.micro_batch(inputs, start, start - 1)


def packed(rows: Sequence[Row], labels: Sequence[int] = (1, -1)) -> MicroBatch:
    """One model row of all completions, each behind its own prompt.

    Position ids begin anew with each, which is how transformers tells them apart: its masks, sliding windows and
    variable-length attention kernels follow from them.
    """
    taken = _Completions(rows, labels)
    lengths = taken.prompt_length + taken.length
    answers = (taken.ids[part] for part in taken.slices)
    ids = np.concatenate(
        [part for both in zip(taken.prompts, answers) for part in both] or [np.zeros(1, int)], dtype=int
    )
    stops = lengths.cumsum()
    positions = np.arange(len(ids)) - np.repeat(stops - lengths, lengths) if len(lengths) else np.zeros(1, int)
    inputs = {"input_ids": torch.from_numpy(ids)[None], "position_ids": torch.from_numpy(positions)[None]}
    start = stops - taken.length
    return taken.micro_batch(inputs, start, start - 1, packed=True)


def shared_prompt(rows: Sequence[Row], labels: Sequence[int] = (1, -1)) -> MicroBatch:
    """One model row for each data row: the prompt once, then its completions, blind to each other.

    Every completion's position ids go on from the prompt's. `segments` are 0 for the prompt, k for the k-th completion
    and -1 for padding; the policy makes of them the mask that its attention takes.
    """
    taken = _Completions(rows, labels)
    lengths = np.array([len(row.prompt) + len(row.ids) for row in taken.rows], dtype=int)
    ids, segments, positions = _empty(lengths), _empty(lengths, -1), _empty(lengths)
    counted, start = np.arange(ids.shape[1]), []
    for i, row in enumerate(taken.rows):
        prompt, stop = len(row.prompt), lengths[i]
        ids[i, :prompt], ids[i, prompt:stop] = row.prompt, row.ids
        segments[i, :prompt], positions[i, :prompt] = 0, counted[:prompt]
        segments[i, prompt:stop] = np.repeat(np.arange(1, len(row.length) + 1), row.length)
        at = prompt
        for length in row.length.tolist():
            positions[i, at : at + length] = counted[prompt : prompt + length]
            start.append(i * ids.shape[1] + at)
            at += length
    inputs = {
        name: torch.from_numpy(values)
        for name, values in (("input_ids", ids), ("segments", segments), ("position_ids", positions))
    }
    before = taken.row * ids.shape[1] + taken.prompt_length - 1
    return taken.micro_batch(inputs, np.array(start, dtype=int), before)


def _empty(lengths: NDArray[np.int64], padding: int = 0) -> NDArray[np.int64]:
    """(rows, longest), all padding.

    Without any sequence a single token: a rank without completions must not skip the model, whose collectives the
    others wait in.
    """
    return np.full((max(len(lengths), 1), max(lengths, default=1)), padding, dtype=np.int64)


def _padded_lengths(row: Row, labels: Sequence[int]) -> tuple[int, ...]:
    arrays = RowArrays.of(row)
    lengths = zip(arrays.label.tolist(), arrays.length.tolist())
    return tuple(len(arrays.prompt) + length for label, length in lengths if label in labels)


def _shared_lengths(row: Row, labels: Sequence[int]) -> tuple[int, ...]:
    lengths = _padded_lengths(row, labels)
    prompt = len(RowArrays.of(row).prompt)
    return (sum(lengths) - (len(lengths) - 1) * prompt,) if lengths else ()


PADDED = Layout(padded, _padded_lengths)
PACKED = Layout(packed, _padded_lengths, packed=True)
SHARED_PROMPT = Layout(shared_prompt, _shared_lengths)

LayoutName = Literal["auto", "padded", "packed", "shared_prompt"]
LAYOUTS = {"padded": PADDED, "packed": PACKED, "shared_prompt": SHARED_PROMPT}
