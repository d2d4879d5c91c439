"""Sequences of tokenized rows: read one by one, some of others, pairs with one side, prompts with other completions."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_bnf.datamodules.reading.answers import Text
from lightning_bnf.datamodules.reading.formats import Unpaired
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.runtime.arguments import ClosedUnitInterval, checked


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

    def prompt(self, index: int) -> Text:
        """The same row's prompt, as it was before it was tokens."""
        return self.row(index).prompt

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


def as_rows(rows: Sequence[TokenizedRow]) -> Rows:
    """The rows, with arrays."""
    return rows if isinstance(rows, Rows) else HeldRows(rows)


def all_arrays(rows: Sequence[TokenizedRow]) -> Iterator[RowArrays]:
    """The arrays of each row in turn."""
    held = as_rows(rows)
    return (held.arrays(i) for i in range(len(held)))


def rows_fingerprint(rows: Sequence[TokenizedRow]) -> str:
    """16 hex digits over all that training reads of the rows, in their order."""
    hashed = hashlib.sha256()
    for row in all_arrays(rows):
        for values in (row.prompt, row.ids, row.trained, row.length, row.label):
            hashed.update(len(values).to_bytes(8) + values.tobytes())
        if any(row.numbers):
            hashed.update(repr([sorted(numbers.items()) for numbers in row.numbers]).encode())
    return hashed.hexdigest()[:16]


class RowView(Rows):
    """Some rows of several sequences, in an order, without holding them."""

    def __init__(self, parts: Sequence[Sequence[TokenizedRow]], places: Sequence[tuple[int, int]] | None = None):
        self._parts = tuple(as_rows(part) for part in parts)
        self._places = (
            [(part, i) for part, rows in enumerate(self._parts) for i in range(len(rows))] if places is None else places
        )

    def __len__(self) -> int:
        return len(self._places)

    def row(self, index: int) -> TokenizedRow:
        part, i = self._places[index]
        return self._parts[part].row(i)

    def arrays(self, index: int) -> RowArrays:
        part, i = self._places[index]
        return self._parts[part].arrays(i)

    def prompt(self, index: int) -> Text:
        part, i = self._places[index]
        return self._parts[part].prompt(i)

    def part_of_rows(self) -> list[int]:
        """Of each row, which of the sequences it is of."""
        return [part for part, _ in self._places]

    def where(self, keep: Callable[[TokenizedRow], bool]) -> "RowView":
        """The rows for which `keep` is true."""
        return self.only(map(keep, self))

    def only(self, kept: Iterable[bool]) -> "RowView":
        """The rows whose place in `kept` is true."""
        return RowView(self._parts, [place for place, keep in zip(self._places, kept) if keep])

    def with_completions(self) -> "RowView":
        """The rows that are no prompts alone."""
        return RowView(self._parts, [place for i, place in enumerate(self._places) if len(self.arrays(i).label)])


def repeated_rows(parts: Sequence[Sequence[TokenizedRow]]) -> list[str]:
    """The places of rows whose content is in an earlier part too."""
    seen: set[str] = set()
    found: list[str] = []
    for rows in map(as_rows, parts if len(parts) > 1 else ()):
        ids = [rows.arrays(i).id for i in range(len(rows))]
        found += [rows.row(i).source for i, row_id in enumerate(ids) if row_id in seen]
        seen.update(ids)
    return found


@checked
class PartlyPaired(Rows):
    """Rows of which only the share `ratio` of the pairs keeps both sides; each other pair keeps one, preferred or not.

    Which pairs, and which of their sides, is drawn from `seed`, equally likely. Other rows stay as they are. With the
    same seed, the pairs whole at a ratio are whole at every larger one, and the others keep the same side. Rows are
    read when they are asked for. Raises `Refusal` for a ratio outside [0, 1].
    """

    def __init__(self, rows: Sequence[TokenizedRow], ratio: ClosedUnitInterval, seed: int):
        self._rows = as_rows(rows)
        pairs = [i for i in range(len(rows)) if self._rows.arrays(i).pairs]
        drawn = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(pairs), generator=drawn).tolist()
        sides = (2 * torch.randint(2, (len(pairs),), generator=drawn) - 1).tolist()
        whole = round(ratio * len(pairs))
        self._kept = {pairs[place]: sides[place] for place in order[whole:]}
        self.report = f"pairing_ratio {ratio:g}: {whole} of {len(rows)} rows are pairs"

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> TokenizedRow:
        row, side = self._rows.row(index), self._kept.get(index)
        if side is None:
            return row
        kept = tuple(completion for completion in row.completions if completion.label == side)
        return replace(row, format=Unpaired.name, completions=kept)

    def arrays(self, index: int) -> RowArrays:
        row, side = self._rows.arrays(index), self._kept.get(index)
        return row if side is None else row.only(row.label == side)


def mismatched(rows: Sequence[TokenizedRow], max_length: int) -> list[TokenizedRow]:
    """For each row its prompt with its partner's completions, cut to `max_length` tokens in all.

    The partner is fixed by the rows' contents: the next one with another prompt in the order of the hashes of their
    ids, whatever the order of training is. Where all prompts are equal there is none, and the row has no completions.
    """
    order = sorted(range(len(rows)), key=lambda i: hashlib.sha256(rows[i].id.encode()).digest())
    held = as_rows(rows)
    prompts = [held.arrays(i).prompt.tobytes() for i in order]
    partner: dict[int, int] = {}
    following: int | None = None
    for step in reversed(range(2 * len(order))):  # once around to know what follows the last one
        place, after = step % len(order), (step + 1) % len(order)
        following = after if prompts[after] != prompts[place] else following  # equal prompts are followed by the same
        if following is not None:
            partner[order[place]] = order[following]
    return [
        _with_completions_of(row, rows[partner[i]] if i in partner else None, max_length) for i, row in enumerate(rows)
    ]


def _with_completions_of(row: TokenizedRow, partner: TokenizedRow | None, max_length: int) -> TokenizedRow:
    room = max_length - len(row.prompt_ids)
    cut = [_cut(completion, room) for completion in partner.completions] if partner else []
    kept = tuple(completion for completion in cut if any(completion.completion_mask))
    return replace(row, id=f"{row.id} (mismatched)", format=Unpaired.name, completions=kept)


def _cut(completion: TokenizedCompletion, room: int) -> TokenizedCompletion:
    return replace(completion, ids=completion.ids[:room], completion_mask=completion.completion_mask[:room])
