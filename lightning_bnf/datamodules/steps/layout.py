"""Layouts: how completions are laid out as a model's inputs. Losses and metrics lie above and cannot tell.

padded          a model row for each completion, its prompt first
packed          one model row for all completions, each with its prompt, one behind the other, without padding
shared_prompt   a model row for each data row: the prompt's tokens once, all its completions behind it, each of which
                sees the prompt and itself
packed_shared   one model row for all data rows, each with its prompt once, one behind the other, without padding; what
                all prompts begin with, such as a system prompt, stands before them once
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_bnf.batch import IN_COMMON, Document, MicroBatch
from lightning_bnf.datamodules.steps.sequences import sequences_of
from lightning_bnf.datamodules.tokens.columns import Ragged, RowColumns, key_numbers, starts_of
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import RowArrays, as_rows
from lightning_bnf.losses.base import Examples
from lightning_bnf.runtime.fingerprints import content_key
from lightning_bnf.runtime.refusal import Refusal

Row = TokenizedRow | RowArrays

WORTH_SHARING = 0.05
"""Share of the rows' tokens that is saved at least where what all prompts begin with stands once in a micro-batch."""

LayoutName = Literal["auto", "padded", "packed", "shared_prompt", "packed_shared"]


class Layout(NamedTuple):
    """batch: (rows, labels) -> the micro-batch of their completions with one of the labels.
    lengths: (rows, labels) -> of each data row the tokens of the model rows that it takes, or of the sequences where
    `packed`, that is where all sequences lie in one model row and nothing is padded, without the tokens in `common`,
    which stand once in a micro-batch."""

    name: LayoutName
    batch: Callable[[Sequence[Row], Sequence[int]], MicroBatch]
    lengths: Callable[[RowColumns, Sequence[int]], Ragged]
    packed: bool = False
    common: int = 0

    def lengths_of(self, rows: Sequence[TokenizedRow], labels: Sequence[int]) -> Ragged:
        """The `lengths` of rows of any kind."""
        return self.lengths(as_rows(rows).columns, labels)

    def sharing(self, common: int) -> "Layout":
        """Of `packed_shared`: for rows whose prompts all begin with the same `common` tokens."""
        batch, lengths = partial(packed_shared, common=common), partial(_shared_lengths, common=common)
        return self._replace(batch=batch, lengths=lengths, common=common)


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


class ToScore(NamedTuple):
    """Completions that a reference is asked for.

    keys: (K, 2) of all of them, on all ranks: who has them all need not cut them; batches: makes this rank's part
    """

    keys: NDArray[np.uint64]
    batches: Callable[[], list[PlannedBatch]]

    @staticmethod
    def of(batches: list[PlannedBatch]) -> "ToScore":
        """What is cut already."""
        return ToScore(key_numbers([key for batch in batches for key in batch.content_keys()]), lambda: batches)


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
        self,
        inputs: dict[str, Tensor],
        start: NDArray[np.int64],
        before: NDArray[np.int64],
        documents: Sequence[Document] | None = None,
    ) -> MicroBatch:
        """The inputs with the places of all trained tokens.

        start, before: (B,) places, in the flattened inputs, of each completion's first token and of the token before
        it, the prompt's last; documents: where model rows hold more than a sequence each
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
            sequences=None if documents is None else sequences_of(documents, inputs["input_ids"].shape),
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
    documents = [Document(0, stop - length, length) for stop, length in zip(stops.tolist(), lengths.tolist())]
    start = stops - taken.length
    return taken.micro_batch(inputs, start, start - 1, documents)


def shared_prompt(rows: Sequence[Row], labels: Sequence[int] = (1, -1)) -> MicroBatch:
    """One model row for each data row: the prompt once, then its completions, blind to each other.

    Every completion's position ids go on from the prompt's. `segments` are 0 for the prompt, k for the k-th completion
    and -1 for padding; the policy makes of them the mask that its attention takes.
    """
    return _shared(_Completions(rows, labels), one_row=False)


def packed_shared(rows: Sequence[Row], labels: Sequence[int] = (1, -1), common: int = 0) -> MicroBatch:
    """One model row of all data rows, each its prompt once and its completions, without padding.

    As `shared_prompt`, with `documents` that tell the data rows apart. The `common` tokens that all prompts begin with,
    and that are the whole of none, are the row's first document, which all others see.
    """
    return _shared(_Completions(rows, labels), one_row=True, common=common)


def layout_for(name: LayoutName, rows: Sequence[TokenizedRow]) -> Layout:
    """The layout of some rows: what all prompts begin with is shared where prompts are, in one row."""
    layout = LAYOUTS[name]
    common = tokens_in_common(rows) if layout is PACKED_SHARED else 0
    return layout.sharing(common) if common else layout


def tokens_in_common(rows: Sequence[TokenizedRow]) -> int:
    """How many tokens all prompts begin with, such as those of a system prompt; 0 where sharing them saves too little.

    Of each prompt a token is left, whose hidden state predicts the completion's first.
    """
    held = as_rows(rows)
    columns = held.columns
    tokens = int(columns.prompt.sum() + columns.length.sum())
    most = min(len(held.beginning()), int(columns.prompt.min()) - 1) if len(held) > 1 else 0
    return most if most * (len(held) - 1) >= WORTH_SHARING * tokens else 0


def _shared(taken: _Completions, one_row: bool, common: int = 0) -> MicroBatch:
    lengths = np.array([len(row.prompt) + len(row.ids) - common for row in taken.rows], dtype=int)
    offsets = common + lengths.cumsum() - lengths if one_row else np.zeros(len(lengths), dtype=int)
    lines = np.zeros(len(lengths), dtype=int) if one_row else np.arange(len(lengths))
    widths = lengths.sum(keepdims=True) + common if one_row and len(lengths) else lengths
    ids, segments, positions, owners = (_empty(widths, padding) for padding in (0, -1, 0, 0))
    counted, start, documents = common + np.arange(max(lengths, default=1)), [], []
    if common and taken.rows:
        prompts = [row.prompt for row in taken.rows]
        if any(len(one) <= common or (one[:common] != prompts[0][:common]).any() for one in prompts):
            raise Refusal(f"rows must have prompts of more than {common} tokens that begin with the same {common}")
        ids[0, :common], segments[0, :common] = taken.rows[0].prompt[:common], 0
        positions[0, :common], owners[0, :common] = np.arange(common), IN_COMMON
        documents.append(Document(0, 0, common))
    for i, (line, begin, row) in enumerate(zip(lines.tolist(), offsets.tolist(), taken.rows)):
        document = Document(line, begin, len(row.prompt) - common, tuple(row.length.tolist()), common)
        at, stop = begin + document.prompt, document.stop
        ids[line, begin:at], ids[line, at:stop] = row.prompt[common:], row.ids
        segments[line, begin:at], positions[line, begin:at] = 0, counted[: document.prompt]
        segments[line, at:stop] = np.repeat(np.arange(1, len(row.length) + 1), row.length)
        owners[line, begin:stop] = i
        for length in document.completions:
            positions[line, at : at + length] = counted[document.prompt : document.prompt + length]
            start.append(line * ids.shape[1] + at)
            at += length
        documents.append(document)
    named = {"input_ids": ids, "segments": segments, "position_ids": positions}
    inputs = {
        name: torch.from_numpy(values) for name, values in (named | ({"documents": owners} if one_row else {})).items()
    }
    before = (lines * ids.shape[1] + offsets)[taken.row] + taken.prompt_length - common - 1
    return taken.micro_batch(inputs, np.array(start, dtype=int), before, documents)


def _empty(lengths: NDArray[np.int64], padding: int = 0) -> NDArray[np.int64]:
    """(rows, longest), all padding.

    Without any sequence a single token: a rank without completions must not skip the model, whose collectives the
    others wait in.
    """
    return np.full((max(len(lengths), 1), max(lengths, default=1)), padding, dtype=np.int64)


def _shared_lengths(rows: RowColumns, labels: Sequence[int], common: int = 0) -> Ragged:
    tokens = rows.tokens(labels)
    some = tokens.counts > 0
    sums = tokens.sums() - (tokens.counts - 1) * rows.prompt - common
    return Ragged(sums[some], starts_of(some))


PADDED = Layout("padded", padded, RowColumns.tokens)
PACKED = Layout("packed", packed, RowColumns.tokens, packed=True)
SHARED_PROMPT = Layout("shared_prompt", shared_prompt, _shared_lengths)
PACKED_SHARED = Layout("packed_shared", packed_shared, _shared_lengths, packed=True)

LAYOUTS: dict[LayoutName, Layout] = {
    "padded": PADDED,
    "packed": PACKED,
    "shared_prompt": SHARED_PROMPT,
    "packed_shared": PACKED_SHARED,
}
