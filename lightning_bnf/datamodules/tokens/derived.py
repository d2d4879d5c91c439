"""Rows made of others: pairs of which some have one side, and prompts with other rows' completions."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from lightning_bnf.datamodules.reading.answers import Text
from lightning_bnf.datamodules.reading.formats import Unpaired
from lightning_bnf.datamodules.tokens.columns import (
    Bools,
    Ints,
    RowColumns,
    codes,
    content_key,
    digests,
    hash_order,
    places_of,
    starts_of,
)
from lightning_bnf.datamodules.tokens.kept_arrays import kept_array
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.datamodules.tokens.rows import Name, RowArrays, Rows, as_rows
from lightning_bnf.runtime.arguments import ClosedUnitInterval, checked

_VERSION = 1  # of how partners are chosen, which is kept on disk


@checked
class PartlyPaired(Rows):
    """Rows of which only the share `ratio` of the pairs keeps both sides; each other pair keeps one, preferred or not.

    Which pairs, and which of their sides, is drawn from `seed`, equally likely. Other rows stay as they are. With the
    same seed, the pairs whole at a ratio are whole at every larger one, and the others keep the same side. Rows are
    read when they are asked for. Raises `Refusal` for a ratio outside [0, 1].
    """

    def __init__(self, rows: Sequence[TokenizedRow], ratio: ClosedUnitInterval, seed: int):
        self._rows = as_rows(rows)
        pairs = np.flatnonzero(self._rows.columns.pairs)
        drawn = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(pairs), generator=drawn).numpy()
        sides = (2 * torch.randint(2, (len(pairs),), generator=drawn) - 1).numpy()
        whole = round(ratio * len(pairs))
        self._side = np.zeros(len(rows), dtype=np.int8)  # the one that is kept; 0: all of the row
        self._side[pairs[order[whole:]]] = sides[order[whole:]]
        self.report = f"pairing_ratio {ratio:g}: {whole} of {len(rows)} rows are pairs"

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> TokenizedRow:
        row, side = self._rows.row(index), self._side[index]
        if not side:
            return row
        kept = tuple(completion for completion in row.completions if completion.label == side)
        return replace(row, format=Unpaired.name, completions=kept)

    def arrays(self, index: int) -> RowArrays:
        row, side = self._rows.arrays(index), self._side[index]
        return row.only(row.label == side) if side else row

    def prompt(self, index: int) -> Text:
        return self._rows.prompt(index)

    def source(self, index: int) -> str:
        return self._rows.source(index)

    @cached_property
    def digest(self) -> bytes:
        return sha256(b"partly paired" + self._rows.digest + self._side.tobytes()).digest()

    @cached_property
    def _kept(self) -> Bools:
        """(C,) which of the rows' completions are there."""
        whole = self._rows.columns
        side = np.repeat(self._side, whole.completions)
        return (side == 0) | (whole.label == side)

    @cached_property
    def columns(self) -> RowColumns:
        cut, whole = self._side != 0, self._rows.columns.without(self._kept)
        return replace(whole, pairs=whole.pairs & ~cut, groups=whole.groups & ~cut)

    def beginning(self) -> NDArray[np.int32]:
        return self._rows.beginning()

    def values(self, name: Name) -> pa.ChunkedArray:
        return self._rows.values(name)

    def numbers(self, name: str) -> NDArray[np.float64]:
        return self._rows.numbers(name)[self._kept]


class Mismatched(Rows):
    """For each row its prompt with its partner's completions, cut to `max_length` tokens in all.

    The partner is fixed by the rows' contents: the next one with another prompt in the order of the hashes of their
    ids, whatever the order of training is. Where all prompts are equal there is none, and the row has no completions.
    """

    def __init__(self, rows: Sequence[TokenizedRow], max_length: int):
        self._rows, self._max_length = as_rows(rows), max_length
        self._partner = _partners(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> TokenizedRow:
        row, partner = self._rows.row(index), int(self._partner[index])
        room = self._max_length - len(row.prompt_ids)
        given = self._rows.row(partner).completions if partner >= 0 else ()
        kept = tuple(one for one in (_cut(one, room) for one in given) if any(one.completion_mask))
        return replace(row, id=f"{row.id} (mismatched)", format=Unpaired.name, completions=kept)

    def arrays(self, index: int) -> RowArrays:
        return RowArrays.of(self.row(index))

    def prompt(self, index: int) -> Text:
        return self._rows.prompt(index)

    def source(self, index: int) -> str:
        return self._rows.source(index)

    @cached_property
    def digest(self) -> bytes:
        cut = f"mismatched {self._max_length} ".encode()
        return sha256(cut + self._rows.digest + self._partner.tobytes()).digest()

    @cached_property
    def _taken(self) -> tuple[Ints, Ints]:
        """The places, among the completions of all rows, of those of the partners, and (N + 1,) where each row's begin
        among them."""
        places, first = places_of(self._rows.columns.first, np.maximum(self._partner, 0))
        there = np.repeat(self._partner >= 0, np.diff(first))
        return places[there], starts_of(there)[first]

    @cached_property
    def _untrained_too(self) -> RowColumns:
        """The rows with all of their partners' completions, cut, also those that nothing trained is left of."""
        whole, (places, first) = self._rows.columns, self._taken
        owner = np.repeat(np.arange(len(self)), np.diff(first))
        room = (self._max_length - whole.prompt)[owner]
        length, trained = np.minimum(whole.length[places], room), whole.trained[places]
        for at in np.flatnonzero(length < whole.length[places]).tolist():
            partner = int(self._partner[owner[at]])
            row, begins = self._rows.arrays(partner), starts_of(whole.length[whole.first[partner] : places[at]])[-1]
            trained[at] = row.trained[begins : begins + length[at]].sum()
        alone = np.zeros(len(self), dtype=bool)
        largest = np.maximum(whole.largest, whole.largest[self._partner])  # of all of both rows, whatever is cut off
        taken = {"length": length, "trained": trained, "label": whole.label[places]}
        return replace(whole, first=first, largest=largest, pairs=alone, groups=alone, **taken)

    @cached_property
    def columns(self) -> RowColumns:
        return self._untrained_too.without(self._untrained_too.trained > 0)

    def beginning(self) -> NDArray[np.int32]:
        return self._rows.beginning()

    def values(self, name: Name) -> pa.ChunkedArray:
        found = self._rows.values(name)
        if name != "id":
            return found
        behind, between = (pa.scalar(text, pa.large_binary()) for text in (b" (mismatched)", b""))
        return pc.binary_join_element_wise(found, behind, between)

    def numbers(self, name: str) -> NDArray[np.float64]:
        return self._rows.numbers(name)[self._taken[0]][self._untrained_too.trained > 0]


def _partners(rows: Rows) -> Ints:
    """(N,) the partner of each row; -1 where there is none."""
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    ids, prompts = rows.values("id"), rows.values("prompt_ids")
    key = f"{_VERSION} ".encode() + content_key(ids) + content_key(prompts)
    return kept_array("mismatched", key, len(rows), lambda: _following(ids, prompts), np.int64)


def _following(ids: pa.ChunkedArray, prompt_ids: pa.ChunkedArray) -> Ints:
    order = hash_order(digests(ids))
    prompts = codes(prompt_ids)[order]
    ends = np.flatnonzero(prompts != np.roll(prompts, -1))  # of runs of one prompt, around the end
    partner = np.full(len(order), -1)
    if len(ends):
        following = ends[np.searchsorted(ends, np.arange(len(order))) % len(ends)] + 1
        partner[order] = order[following % len(order)]
    return partner


def _cut(completion: TokenizedCompletion, room: int) -> TokenizedCompletion:
    return replace(completion, ids=completion.ids[:room], completion_mask=completion.completion_mask[:room])
