"""Sequences of tokenized rows: read one by one, some of others, pairs with one side, prompts with other completions."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import overload

import torch

from lightning_bnf.datamodules.reading.formats import Unpaired
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.runtime.refusal import Refusal


class Rows(Sequence[TokenizedRow]):
    """What `row` gives for each place from 0; places from the end and slices, which are lists, come with it."""

    @abstractmethod
    def row(self, index: int) -> TokenizedRow:
        """The row at a place in [0, len)."""

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


class RowView(Rows):
    """Some rows of several sequences, in an order, without holding them."""

    def __init__(self, parts: Sequence[Sequence[TokenizedRow]], places: Sequence[tuple[int, int]] | None = None):
        self._parts = tuple(parts)
        self._places = (
            [(part, i) for part, rows in enumerate(self._parts) for i in range(len(rows))] if places is None else places
        )

    def __len__(self) -> int:
        return len(self._places)

    def row(self, index: int) -> TokenizedRow:
        part, i = self._places[index]
        return self._parts[part][i]

    def where(self, keep: Callable[[TokenizedRow], bool]) -> "RowView":
        """The rows for which `keep` is true."""
        return RowView(self._parts, [place for place, row in zip(self._places, self) if keep(row)])


class PartlyPaired(Rows):
    """Rows of which only the share `ratio` of the pairs keeps both sides; each other pair keeps one, preferred or not.

    Which pairs, and which of their sides, is drawn from `seed`, equally likely. Other rows stay as they are. With the
    same seed, the pairs whole at a ratio are whole at every larger one, and the others keep the same side. Rows are
    read when they are asked for. Raises ValueError for a ratio outside [0, 1].
    """

    def __init__(self, rows: Sequence[TokenizedRow], ratio: float, seed: int):
        if not 0 <= ratio <= 1:
            raise Refusal(f"pairing_ratio {ratio}: accepted are numbers from 0 to 1")
        self._rows = rows
        pairs = [i for i, row in enumerate(rows) if row.pairs]
        drawn = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(pairs), generator=drawn).tolist()
        sides = (2 * torch.randint(2, (len(pairs),), generator=drawn) - 1).tolist()
        whole = round(ratio * len(pairs))
        self._kept = {pairs[place]: sides[place] for place in order[whole:]}
        self.report = f"pairing_ratio {ratio:g}: {whole} of {len(rows)} rows are pairs"

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> TokenizedRow:
        row, side = self._rows[index], self._kept.get(index)
        if side is None:
            return row
        kept = tuple(one for one in row.completions if one.label == side)
        return replace(row, format=Unpaired.name, completions=kept)


def mismatched(rows: Sequence[TokenizedRow], max_length: int) -> list[TokenizedRow]:
    """For each row its prompt with its partner's completions, cut to `max_length` tokens in all.

    The partner is fixed by the rows' contents: the next one with another prompt in the order of the hashes of their
    ids, whatever the order of training is. Where all prompts are equal there is none, and the row has no completions.
    """
    order = sorted(range(len(rows)), key=lambda i: hashlib.sha256(rows[i].id.encode()).digest())
    found: dict[int, TokenizedRow] = {}
    for place, i in enumerate(order):
        others = (rows[order[(place + step) % len(rows)]] for step in range(1, len(rows)))
        partner = next((other for other in others if other.prompt_ids != rows[i].prompt_ids), None)
        found[i] = _with_completions_of(rows[i], partner, max_length)
    return [found[i] for i in range(len(rows))]


def _with_completions_of(row: TokenizedRow, partner: TokenizedRow | None, max_length: int) -> TokenizedRow:
    room = max_length - len(row.prompt_ids)
    cut = [_cut(completion, room) for completion in partner.completions] if partner else []
    kept = tuple(completion for completion in cut if any(completion.completion_mask))
    return replace(row, id=f"{row.id} (mismatched)", format=Unpaired.name, completions=kept)


def _cut(completion: TokenizedCompletion, room: int) -> TokenizedCompletion:
    return replace(completion, ids=completion.ids[:room], completion_mask=completion.completion_mask[:room])
