"""What decides on rows, as arrays of all of them: so that no pass over a million rows is a loop in Python."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from itertools import pairwise
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def starts_of(counts: Any) -> Ints:
    """(N + 1,) where each of so many begins, one behind the other, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def places_of(first: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Of some rows the places of what they have, one behind the other, and where there each row's begin."""
    counts = first[rows + 1] - first[rows]
    begins = starts_of(counts)
    return np.repeat(first[rows] - begins[:-1], counts) + np.arange(begins[-1]), begins


@dataclass(frozen=True, eq=False)
class Ragged(Sequence[tuple[int, ...]]):
    """A few numbers of each of N rows: `values` (C,), of which those of a row begin at its `first` (N + 1,)."""

    values: Ints
    first: Ints

    @staticmethod
    def of(rows: Sequence[Sequence[int]]) -> "Ragged":
        """The numbers of each row as arrays, or those given."""
        if isinstance(rows, Ragged):
            return rows
        flat = [value for row in rows for value in row]
        return Ragged(np.array(flat, dtype=np.int64), starts_of([len(row) for row in rows]))

    def __len__(self) -> int:
        return len(self.first) - 1

    @overload
    def __getitem__(self, index: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, ...] | list[tuple[int, ...]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        at = index % len(self)
        return tuple(self.values[self.first[at] : self.first[at + 1]].tolist())

    @property
    def counts(self) -> Ints:
        """(N,) how many numbers each row has."""
        return np.diff(self.first)

    def sums(self) -> Ints:
        """(N,) of each row."""
        return self._of_each(np.add.reduceat, 0)

    def largest(self) -> Ints:
        """(N,) of each row, 0 where it has none."""
        return self._of_each(np.maximum.reduceat, 0)

    def sizes(self, packed: bool) -> Ints:
        """(N,) tokens of a micro-batch of each row alone, padding included, where the numbers are of its sequences."""
        return self.sums() if packed else self.counts * self.largest()

    def where(self, kept: Bools) -> "Ragged":
        """Without the numbers that are not `kept` (C,)."""
        return Ragged(self.values[kept], starts_of(kept)[self.first])

    def _of_each(self, reduce: Callable[..., Any], empty: int) -> Ints:
        return reduced(reduce, self.values, self.first, empty)


def reduced(reduce: Callable[..., Any], values: NDArray[Any], first: Ints, empty: Any) -> NDArray[Any]:
    """(N,) a ufunc's `reduceat` over what each row has of the values (C,); `empty` where it has nothing."""
    some = first[1:] > first[:-1]
    found = np.full(len(first) - 1, empty, dtype=values.dtype)
    if some.any():
        found[some] = reduce(values, first[:-1][some])
    return found


def codes(values: pa.ChunkedArray) -> Ints:
    """(N,) the same number for the same bytes, which may be encoded as such numbers already."""
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    return np.concatenate([np.zeros(0, np.int64), *(part.indices.to_numpy() for part in encoded.chunks)])


def digests(values: pa.ChunkedArray, before: bytes = b"", behind: bytes = b"") -> NDArray[np.uint64]:
    """(N, 4) the SHA-256 of each of some bytes (large binary), between those given: of one after the other, as that is
    how the hash is made."""
    found = bytearray()
    for ends, content in _buffers(values):
        held = content.tobytes()
        for start, stop in pairwise(ends.tolist()):
            found += sha256(before + held[start:stop] + behind).digest()
    return np.frombuffer(found, ">u8").reshape(-1, 4).astype(np.uint64)


def content_key(values: pa.ChunkedArray) -> bytes:
    """The SHA-256 of all of some bytes (large binary) and of where each ends, however they lie in chunks."""
    held, lengths = sha256(), sha256()
    for ends, content in _buffers(values):
        held.update(content[ends[0] : ends[-1]])
        lengths.update(np.diff(ends).tobytes())
    return held.digest() + lengths.digest()


def _buffers(values: pa.ChunkedArray) -> Iterator[tuple[Ints, memoryview]]:
    """Of each chunk of bytes (large binary) where they begin and end, and what holds them."""
    for chunk in filter(len, values.chunks):
        _, offsets, content = chunk.buffers()
        ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        yield ends, memoryview(b"" if content is None else content)


def among(values: pa.ChunkedArray, others: pa.ChunkedArray) -> Bools:
    """(N,) whether each of some bytes is one of the others. The fewer of both are hashed, as that is what takes time
    and memory."""
    if len(others) > len(values):
        others = others.filter(pc.is_in(others, value_set=values))
    return pc.is_in(values, value_set=others).to_numpy()


def hash_order(hashes: NDArray[np.uint64]) -> Ints:
    """(N,) the places of some digests in rising order; those alike as they stand."""
    order = np.argsort(hashes[:, 0], kind="stable")  # ten times as fast as by all four, and nearly always enough
    ahead, behind = hashes[order[:-1]], hashes[order[1:]]
    unclear = (ahead[:, 0] == behind[:, 0]) & (ahead != behind).any(axis=1)
    return np.lexsort(hashes.T[::-1]) if unclear.any() else order


def key_numbers(keys: Sequence[bytes]) -> NDArray[np.uint64]:
    """(K, 2) keys of 16 bytes as numbers of 64 bits, which are in the same order."""
    return np.frombuffer(b"".join(keys), dtype=">u8").reshape(-1, 2).astype(np.uint64)


def key_bytes(keys: NDArray[np.uint64]) -> list[bytes]:
    """The keys that are such numbers (K, 2)."""
    held = keys.astype(">u8").tobytes()
    return [held[at : at + 16] for at in range(0, len(held), 16)]


@dataclass(frozen=True, eq=False)
class RowColumns:
    """N rows with C completions in all, as arrays.

    first: (N + 1,) where each row's completions begin
    prompt: (N,) tokens of the prompt; largest: (N,) the largest token id of the row
    pairs, groups, kept_out, verified: (N,) what the row is, and whether it is kept out and has a verifier
    length, trained, label: (C,) tokens of each completion, how many of them are trained, and +1 or -1
    """

    first: Ints
    prompt: NDArray[np.int32]
    largest: NDArray[np.int32]
    pairs: Bools
    groups: Bools
    kept_out: Bools
    verified: Bools
    length: NDArray[np.int32]
    trained: NDArray[np.int32]
    label: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def completions(self) -> Ints:
        """(N,) how many each row has."""
        return np.diff(self.first)

    def take(self, rows: Ints) -> "RowColumns":
        """Some of the rows, in their order."""
        places, first = places_of(self.first, rows)
        taken = {name: getattr(self, name)[rows] for name in _OF_ROWS}
        return RowColumns(first, **taken, **{name: getattr(self, name)[places] for name in _OF_COMPLETIONS})

    def without(self, kept: Bools) -> "RowColumns":
        """The rows without the completions that are not `kept` (C,)."""
        left = {name: getattr(self, name)[kept] for name in _OF_COMPLETIONS}
        return replace(self, first=starts_of(kept)[self.first], **left)

    @staticmethod
    def joined(parts: Sequence["RowColumns"]) -> "RowColumns":
        """The rows of several, one behind the other."""
        if len(parts) == 1:
            return parts[0]
        first = starts_of([part.first[-1] for part in parts])
        names = (*_OF_ROWS, *_OF_COMPLETIONS)
        return RowColumns(
            np.concatenate([[0], *(part.first[1:] + begin for part, begin in zip(parts, first))]).astype(np.int64),
            **{name: np.concatenate([_EMPTY[name], *(getattr(part, name) for part in parts)]) for name in names},
        )

    def tokens(self, labels: Sequence[int]) -> Ragged:
        """Of each row the tokens of its prompt with each completion that has one of the labels."""
        tokens = self.length.astype(np.int64) + np.repeat(self.prompt, self.completions)
        whole = Ragged(tokens, self.first)
        return whole.where(self.has(labels))

    def has(self, labels: Sequence[int]) -> Bools:
        """(C,) whether each completion has one of the labels."""
        return np.isin(self.label, list(labels))


_OF_COMPLETIONS = ("length", "trained", "label")
_OF_ROWS = tuple(one.name for one in fields(RowColumns) if one.name not in ("first", *_OF_COMPLETIONS))
_TYPES = {"prompt": np.int32, "largest": np.int32, "length": np.int32, "trained": np.int32, "label": np.int8}
_EMPTY = {name: np.zeros(0, _TYPES.get(name, np.bool_)) for name in (*_OF_ROWS, *_OF_COMPLETIONS)}
