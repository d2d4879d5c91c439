"""Sequences of tokenized rows: read one by one or as columns, and some of others."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lightning_bnf.datamodules.reading.answers import Text
from lightning_bnf.datamodules.tokens.columns import Bools, Ints, RowColumns, key_numbers, places_of, starts_of
from lightning_bnf.datamodules.tokens.kept_arrays import kept_array
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.runtime.fingerprints import content_key

Name = Literal["id", "family", "format", "spaced", "prompt_ids"]
_KEYS_VERSION = 1  # of how they are made, which are kept on disk
_AT_ONCE = 2**15  # rows whose contents are hashed together


@dataclass(frozen=True, eq=False)
class RowArrays:
    """What steps are made of: a row's tokens as arrays, read without a Python object for each token.

    prompt: (P,) int32 token ids
    ids, trained: (L,) int32 token ids and bools of all C completions, one behind the other
    length, label: (C,) tokens of each completion, and +1 or -1
    numbers: for each completion what the data say of it
    """

    id: str
    pairs: bool
    prompt: NDArray[np.int32]
    ids: NDArray[np.int32]
    trained: NDArray[np.bool_]
    length: NDArray[np.int64]
    label: NDArray[np.int64]
    numbers: Sequence[Mapping[str, float]]

    @staticmethod
    def of(row: "TokenizedRow | RowArrays") -> "RowArrays":
        """The arrays of a row, or those given."""
        if isinstance(row, RowArrays):
            return row
        completions = row.completions
        return RowArrays(
            id=row.id,
            pairs=row.pairs,
            prompt=np.array(row.prompt_ids, dtype=np.int32),
            ids=np.array([*chain.from_iterable(c.ids for c in completions)], dtype=np.int32),
            trained=np.array([*chain.from_iterable(c.completion_mask for c in completions)], dtype=bool),
            length=np.array([len(c.ids) for c in completions], dtype=np.int64),
            label=np.array([c.label for c in completions], dtype=np.int64),
            numbers=tuple(c.numbers for c in completions),
        )

    def only(self, kept: NDArray[np.bool_], pairs: bool = False) -> "RowArrays":
        """The row without the completions that are not `kept` (C,)."""
        tokens = np.repeat(kept, self.length)
        return RowArrays(
            self.id,
            pairs,
            self.prompt,
            self.ids[tokens],
            self.trained[tokens],
            self.length[kept],
            self.label[kept],
            [numbers for numbers, keep in zip(self.numbers, kept) if keep],
        )


class Rows(Sequence[TokenizedRow]):
    """What `row` gives for each place from 0; places from the end and slices, which are lists, come with it."""

    @abstractmethod
    def row(self, index: int) -> TokenizedRow:
        """The row at a place in [0, len)."""

    @abstractmethod
    def arrays(self, index: int) -> RowArrays:
        """The same row's arrays."""

    @property
    @abstractmethod
    def columns(self) -> RowColumns:
        """What decides on all rows."""

    @abstractmethod
    def values(self, name: Name) -> pa.ChunkedArray:
        """(N,) bytes of each row: its `id`, `family`, `format` or `prompt_ids`, or its prompt as `spaced` writes it."""

    @abstractmethod
    def numbers(self, name: str) -> NDArray[np.float64]:
        """(C,) what the data say of each completion under a name of `NUMBERS`; NaN where they do not."""

    def beginning(self) -> NDArray[np.int32]:
        """The token ids that all prompts begin with; of a part of rows perhaps fewer, those of all."""
        found: NDArray[np.int32] | None = None
        for chunk in self.values("prompt_ids").chunks:
            found = _beginning(chunk, found)
        return np.zeros(0, np.int32) if found is None else found

    def prompt(self, index: int) -> Text:
        """The same row's prompt, as it was before it was tokens."""
        return self.row(index).prompt

    def source(self, index: int) -> str:
        """Where the same row stands."""
        return self.row(index).source

    def content(self, rows: Ints) -> bytes:
        """All that training reads of some rows, in their order: what their fingerprint is of."""
        return b"".join(_content(self.arrays(i)) for i in rows.tolist())

    @cached_property
    def digest(self) -> bytes:
        """What tells the rows from others: of their content, or of all that it depends on."""
        return _hashed(self).digest()

    @overload
    def __getitem__(self, index: int) -> TokenizedRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenizedRow]: ...
    def __getitem__(self, index: int | slice) -> TokenizedRow | list[TokenizedRow]:
        if isinstance(index, slice):
            return [self.row(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.row(index % len(self))

    def __iter__(self) -> Iterator[TokenizedRow]:
        return (self.row(i) for i in range(len(self)))


class HeldRows(Rows):
    """Rows that are in memory; their arrays are made when they are first asked for, and kept."""

    def __init__(self, rows: Sequence[TokenizedRow]):
        self._rows = rows
        self._arrays: dict[int, RowArrays] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> TokenizedRow:
        return self._rows[index]

    def arrays(self, index: int) -> RowArrays:
        if index not in self._arrays:
            self._arrays[index] = RowArrays.of(self._rows[index])
        return self._arrays[index]

    @cached_property
    def columns(self) -> RowColumns:
        held = [self.arrays(i) for i in range(len(self))]
        length = np.array([n for row in held for n in row.length], dtype=np.int32)
        ends = np.cumsum(length)
        before = starts_of(np.concatenate([np.zeros(0, bool), *(row.trained for row in held)]))
        flags = {
            name: np.array([bool(getattr(row, name)) for row in self._rows], dtype=bool)
            for name in ("pairs", "groups", "kept_out")
        }
        return RowColumns(
            first=starts_of([len(row.label) for row in held]),
            prompt=np.array([len(row.prompt) for row in held], dtype=np.int32),
            largest=np.array([max(row.prompt.max(initial=0), row.ids.max(initial=0)) for row in held], dtype=np.int32),
            verified=np.array([row.verifier is not None for row in self._rows], dtype=bool),
            length=length,
            trained=(before[ends] - before[ends - length]).astype(np.int32),
            label=np.array([label for row in held for label in row.label], dtype=np.int8),
            **flags,
        )

    def values(self, name: Name) -> pa.ChunkedArray:
        held: list[str | bytes | None]
        if name == "prompt_ids":
            held = [self.arrays(i).prompt.tobytes() for i in range(len(self))]
        else:
            held = [spaced(row.prompt) if name == "spaced" else getattr(row, name) for row in self._rows]
        return pa.chunked_array([held], type=pa.large_binary())

    def numbers(self, name: str) -> NDArray[np.float64]:
        given = [one.numbers.get(name, np.nan) for row in self._rows for one in row.completions]
        return np.array(given, dtype=np.float64)


_AT_A_TIME = 64
"""Ids of all prompts that are looked at before the next ones are: those of most chat templates' own beginning."""


def _alike(one: NDArray[np.int32], other: NDArray[np.int32]) -> NDArray[np.int32]:
    shorter = min(len(one), len(other))
    differing = np.flatnonzero(one[:shorter] != other[:shorter])
    return one[: differing[0] if len(differing) else shorter]


def _beginning(prompts: pa.Array, known: NDArray[np.int32] | None) -> NDArray[np.int32] | None:
    """What some prompts (bytes of int32) begin with, of the ids known of those before them."""
    _, offsets, content = prompts.buffers()
    at = np.frombuffer(offsets, np.int64)[prompts.offset : prompts.offset + len(prompts) + 1] // 4
    ids = np.frombuffer(content or b"", np.int32)
    for place in range(0, len(prompts), _AT_ONCE):
        begins, ends = at[:-1][place : place + _AT_ONCE], at[1:][place : place + _AT_ONCE]
        alike: NDArray[np.int32] = ids[begins[0] : ends[0]] if known is None else known
        known = alike[: (ends - begins).min()]
        for start in range(0, len(known), _AT_A_TIME):
            some = known[start : start + _AT_A_TIME]
            same = (ids[begins[:, None] + np.arange(start, start + len(some))] == some).all(axis=0)
            if not same.all():
                known = known[: start + int(same.argmin())]
                break
    return known


def as_rows(rows: Sequence[TokenizedRow]) -> Rows:
    """The rows, with arrays."""
    return rows if isinstance(rows, Rows) else HeldRows(rows)


def spaced(prompt: Text) -> str:
    """A prompt as JSON, alike for all that are the same but for their spaces; plain text is one user message's."""
    turns: Sequence[tuple[str, str]]
    turns = [("user", prompt)] if isinstance(prompt, str) else [(turn["role"], turn["content"]) for turn in prompt]
    return json.dumps([[role, " ".join(text.split())] for role, text in turns])


def _content(row: RowArrays) -> bytes:
    arrays = (row.prompt, row.ids, row.trained, row.length, row.label)
    parts = [part for values in arrays for part in (len(values).to_bytes(8), values.tobytes())]
    return b"".join([*parts, content_of_numbers(row.numbers)])


def content_of_numbers(numbers: Sequence[Mapping[str, float]]) -> bytes:
    """What a row's numbers add to its content; nothing where it has none."""
    return repr([sorted(given.items()) for given in numbers]).encode() if any(numbers) else b""


def rows_fingerprint(rows: Sequence[TokenizedRow]) -> str:
    """16 hex digits over all that training reads of the rows, in their order."""
    return str(_hashed(as_rows(rows)).hexdigest()[:16])


def _hashed(rows: Rows) -> Any:
    hashed = hashlib.sha256()
    for start in range(0, len(rows), _AT_ONCE):
        hashed.update(rows.content(np.arange(start, min(start + _AT_ONCE, len(rows)))))
    return hashed


def content_keys(rows: Sequence[TokenizedRow]) -> NDArray[np.uint64]:
    """(C, 2) of all completions the `content_key`, as `key_numbers` gives them. Kept for the next run, as they are made
    one by one."""
    held = as_rows(rows)

    def made() -> NDArray[np.uint64]:
        return key_numbers([key for i in range(len(held)) for key in _keys(held.arrays(i))]).ravel()

    key = f"{_KEYS_VERSION} ".encode() + held.digest
    return kept_array("content_keys", key, 2 * len(held.columns.length), made, np.uint64).reshape(-1, 2)


def _keys(row: RowArrays) -> Iterator[bytes]:
    stops = np.cumsum(row.length).tolist()
    for start, stop in zip([0, *stops], stops):
        yield content_key(row.prompt, row.ids[start:stop], row.trained[start:stop])


class RowView(Rows):
    """Some rows of several sequences, without holding them: of all of them one behind the other those at `places`, in
    that order."""

    def __init__(self, parts: Sequence[Sequence[TokenizedRow]], places: Ints | None = None):
        self._parts = tuple(as_rows(part) for part in parts)
        self._starts = starts_of([len(part) for part in self._parts])
        self._places = np.arange(self._starts[-1]) if places is None else places
        self._whole = places is None

    def __len__(self) -> int:
        return len(self._places)

    def _at(self, index: int) -> tuple[Rows, int]:
        place = int(self._places[index])
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._parts[part], place - int(self._starts[part])

    def row(self, index: int) -> TokenizedRow:
        rows, i = self._at(index)
        return rows.row(i)

    def arrays(self, index: int) -> RowArrays:
        rows, i = self._at(index)
        return rows.arrays(i)

    def beginning(self) -> NDArray[np.int32]:
        found: NDArray[np.int32] | None = None
        for other in (part.beginning() for part in self._parts if len(part)):
            found = other if found is None else _alike(found, other)
        return np.zeros(0, np.int32) if found is None else found

    def prompt(self, index: int) -> Text:
        rows, i = self._at(index)
        return rows.prompt(i)

    def source(self, index: int) -> str:
        rows, i = self._at(index)
        return rows.source(i)

    @cached_property
    def _all(self) -> RowColumns:
        return RowColumns.joined([part.columns for part in self._parts])

    @cached_property
    def columns(self) -> RowColumns:
        return self._all if self._whole else self._all.take(self._places)

    def values(self, name: Name) -> pa.ChunkedArray:
        chunks = [chunk for part in self._parts for chunk in part.values(name).chunks]
        found = pa.chunked_array(chunks, type=pa.large_binary())
        return found if self._whole else found.take(pa.array(self._places))

    def numbers(self, name: str) -> NDArray[np.float64]:
        found = np.concatenate([np.zeros(0), *(part.numbers(name) for part in self._parts)])
        return found if self._whole else found[places_of(self._all.first, self._places)[0]]

    def content(self, rows: Ints) -> bytes:
        places = self._places[rows]
        parts = np.searchsorted(self._starts, places, side="right") - 1
        runs = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(parts)) + 1) if len(rows) else []
        return b"".join(self._parts[parts[run[0]]].content(places[run] - self._starts[parts[run[0]]]) for run in runs)

    @cached_property
    def digest(self) -> bytes:
        parts = (part.digest + len(part).to_bytes(8) for part in self._parts)
        return hashlib.sha256(b"view" + b"".join(parts) + np.ascontiguousarray(self._places).data).digest()

    def part_of_rows(self) -> Ints:
        """(N,) of each row, which of the sequences it is of."""
        return np.searchsorted(self._starts, self._places, side="right") - 1

    def only(self, kept: Bools) -> "RowView":
        """The rows that are `kept` (N,)."""
        return self if kept.all() else RowView(self._parts, self._places[kept])

    def with_completions(self) -> "RowView":
        """The rows that are no prompts alone."""
        return self.only(self.columns.completions > 0)
