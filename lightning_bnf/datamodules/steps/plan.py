"""The step plan: which rows an optimizer step trains on, and how they are cut into micro-batches.

A pure function of (seed, epoch, step). The rows of a step do not depend on the token budget or the number of ranks, so
neither does the result; step n means the same everywhere, and resuming is: start at step n.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from lightning_bnf.datamodules.steps.mixing import Mix
from lightning_bnf.datamodules.tokens.columns import Ints, codes
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import as_rows
from lightning_bnf.runtime.arguments import PositiveInt, checked
from lightning_bnf.runtime.refusal import Refusal

CALL_TOKENS = {"cpu": 64, "cuda": 1024}
"""What a micro-batch costs beside its tokens, in tokens, by device: padding worth less than that is not worth another
one. On GPUs it is launches of kernels and, with several ranks, collectives; `max_tokens: auto` measures it there."""


def call_tokens_on(device: str) -> int:
    """The `CALL_TOKENS` of a type of device."""
    return CALL_TOKENS.get(device, CALL_TOKENS["cpu"])


class Budget(NamedTuple):
    """How a step is cut: tokens of a micro-batch at most, padding included, and what one costs beside them."""

    max_tokens: int
    call_tokens: int


@checked
@dataclass(frozen=True, eq=False)
class StepPlan:
    """Plans the steps over some rows.

    tokens: for each row the tokens (prompt + completion) of each of its completions
    examples_per_step: rows of an optimizer step, over all ranks; the last step of an epoch takes what is left
    max_tokens: token budget of a micro-batch, padding included; a single row may exceed it
    seed: of the order of rows, another one every epoch; None keeps the rows' own order
    world_size: number of ranks that share a step
    packed: whether a micro-batch's sequences lie one behind the other, so that nothing is padded
    common: tokens that each micro-batch has beside its rows', which see them: kernels for sequences of any length take
        their keys once more for each, so that no more rows share them than make `max_tokens` of such keys
    call_tokens: what a micro-batch costs beside its tokens, in tokens
    strata: of each row a name, or the place of its name among all; then every step holds each name in its share of the
        rows, as far as whole rows go
    mix: of several sets with weights, which row follows which; some are then in an epoch more than once, or not at all
    limit: the first steps of each epoch that a run takes, as many, or as a share of all
    again: whether a run takes those of the first epoch in all of them
    """

    tokens: Sequence[Sequence[int]]
    examples_per_step: PositiveInt
    max_tokens: PositiveInt
    seed: int | None = None
    world_size: PositiveInt = 1
    packed: bool = False
    call_tokens: PositiveInt = CALL_TOKENS["cpu"]
    strata: Sequence[str] | Ints | None = None
    mix: Mix | None = None
    common: int = 0
    limit: int | float = 1.0
    again: bool = False

    @cached_property
    def _strata(self) -> "_Strata | None":
        if self.strata is None:
            return None
        names, of = np.unique(np.asarray(self.strata), return_inverse=True)
        return _Strata(of, len(names))

    @property
    def examples(self) -> int:
        """Rows of an epoch, each as often as it is in it."""
        return len(self.tokens) if self.mix is None else len(self.mix.sets)

    def __len__(self) -> int:
        """Steps of an epoch."""
        return -(-self.examples // self.examples_per_step)

    @property
    def of_epoch(self) -> int:
        """Steps that a run takes of an epoch."""
        return min(self.limit, len(self)) if isinstance(self.limit, int) else int(self.limit * len(self))

    def place(self, number: int) -> tuple[int, int]:
        """Epoch and step, where a run has taken so many steps before."""
        epoch, step = divmod(number, max(self.of_epoch, 1))
        return 0 if self.again else epoch, step

    def rows(self, epoch: int, step: int) -> list[int]:
        """The rows of a step, over all micro-batches and ranks."""
        first, stop = step * self.examples_per_step, (step + 1) * self.examples_per_step
        if self.seed is None:
            return list(range(first, min(stop, len(self.tokens))))
        order = _order(len(self.tokens), self.seed, epoch, self._strata, self.mix)
        return order[first:stop].tolist()

    def rows_until(self, steps: int) -> Ints:
        """The rows of a run's first `steps` steps, over as many epochs as they take, in the rows' own order, each
        once."""
        seen = np.zeros(len(self.tokens), dtype=bool)
        for number in range(min(steps, self.of_epoch) if self.again else steps):
            if seen.all():
                break
            seen[self.rows(*self.place(number))] = True
        return np.flatnonzero(seen)

    def micro_batches(self, epoch: int, step: int) -> list[list[int]]:
        """All micro-batches of a step: rows of like length together, the largest micro-batch first, so that memory
        peaks at once and what the others take fits into what it has left.

        Cut where the least time is lost to padding and to further micro-batches; with several ranks, into such equal
        ones that none waits long for another. Rows without tokens, of which the loss learns nothing, are in none.
        """
        lengths = {row: self.tokens[row] for row in self.rows(epoch, step)}
        rows = [row for row in self.rows(epoch, step) if lengths[row]]
        rows.sort(key=lambda row: (-max(lengths[row]), row))
        batches = self._cut(rows, self.max_tokens)
        if self.world_size == 1 or not rows:
            return batches
        wanted = -(-len(batches) // self.world_size) * self.world_size
        budget = self.common + sum(sum(lengths[row]) for row in rows) / wanted
        while budget < self.max_tokens:
            even = self._cut(rows, budget)
            if len(even) <= wanted:
                return even
            budget *= 1.1
        return batches

    def size(self, rows: Sequence[int]) -> int:
        """Tokens of a micro-batch of these rows, padding included."""
        return size_of([length for row in rows for length in self.tokens[row]], self.packed, self.common)

    def _cut(self, rows: Sequence[int], budget: float) -> list[list[int]]:
        """Rows by falling length, cut into runs within the budget so that tokens, with padding, and `call_tokens` for
        each run sum to the least: by the best way to cut the first j rows, for each j. The largest run first."""
        tokens = [self.tokens[row] for row in rows]
        least, start = [0.0], [0]
        for j in range(1, len(rows) + 1):
            count = total = 0
            least.append(float("inf"))
            start.append(j - 1)
            for i in range(j - 1, -1, -1):
                lengths = tokens[i]
                count, total = count + len(lengths), total + sum(lengths)
                size = self.common + (total if self.packed else count * max(lengths))
                if (size > budget or self.common * count > self.max_tokens) and i < j - 1:
                    break
                if least[i] + size + self.call_tokens < least[j]:
                    least[j], start[j] = least[i] + size + self.call_tokens, i
        batches, j = [], len(rows)
        while j:
            batches.append(list(rows[start[j] : j]))
            j = start[j]
        return sorted(batches, key=self.size, reverse=True)

    def for_rank(self, epoch: int, step: int, rank: int) -> list[list[int]]:
        """One rank's micro-batches: every rank has equally many, so some may be empty."""
        batches = self.micro_batches(epoch, step)
        rounds = -(-len(batches) // self.world_size)
        return [batches[i] if i < len(batches) else [] for i in range(rank, rounds * self.world_size, self.world_size)]


def size_of(lengths: Sequence[int], packed: bool, common: int = 0) -> int:
    """Tokens of a micro-batch of sequences of these lengths, padding included; `packed` ones have none. With those that
    stand in it once."""
    return common + (sum(lengths) if packed else len(lengths) * max(lengths))


@dataclass(frozen=True, eq=False)
class _Strata:
    """of: (N,) the place of each row's name among the `names`, in their order"""

    of: Ints
    names: int


def families_of(rows: Sequence[TokenizedRow]) -> Ints:
    """(N,) the place of each row's family among all of them, as strata. Raises `Refusal` where none has one."""
    encoded = as_rows(rows).values("family").fill_null(b"").dictionary_encode()
    names = encoded.chunk(0).dictionary.to_pylist() if len(encoded) else []
    if not any(names):
        raise Refusal("data.stratify must be false where no training row has a family, got true")
    return np.argsort(np.argsort(np.array(names)))[codes(encoded)]


@lru_cache(maxsize=4)  # an epoch asks for the same order at every step
def _order(rows: int, seed: int, epoch: int, strata: _Strata | None, mix: Mix | None) -> Ints:
    if mix is not None:
        return mix.order(seed, epoch)
    generator, shuffled = random.Random(f"{seed}/{epoch}"), list(range(rows))
    generator.shuffle(shuffled)
    order = np.array(shuffled, dtype=np.int64)
    if strata is None:
        return order
    places, stratum = np.empty(rows), strata.of[order]
    for name in range(strata.names):  # each stratum evenly apart over the epoch, from a start of its own
        mine = np.flatnonzero(stratum == name)
        places[mine] = (np.arange(len(mine)) + generator.random()) / len(mine)
    return order[np.argsort(places, kind="stable")]
