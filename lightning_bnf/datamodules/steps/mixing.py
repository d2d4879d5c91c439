"""Several sets of rows in one epoch, by weights: which set each example is drawn from, and which of its rows.

A pure function of sizes, weights, seed and epoch. Within an epoch, after any number t of examples, a set of share w has
had more than w t - 1 and less than w t + 1 of them: each draw goes to the set that could wait the least, of those that
are not ahead (the earliest deadline first, which is always possible: Baruah et al., 1996, "Proportionate Progress").
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import Any

import numpy as np

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.tokens.columns import Ints
from lightning_bnf.runtime.arguments import PositiveFloat, checked
from lightning_bnf.runtime.refusal import Refusal


@checked
@dataclass(frozen=True)
class WeightedSet:
    """One of several training sets.

    Args:
        path: File, dataset folder or hub id.
        weight: Its share of the examples, beside the other sets' weights.
    """

    path: str
    weight: PositiveFloat


def weighted_sets(given: Any, epoch_of: str | None, pairing_ratio: float, stratify: bool) -> list[WeightedSet] | None:
    """Sets with weights, given as such or as `{path: ..., weight: ...}`; None for data without. Raises `Refusal`, also
    for the other arguments of the data where they do not go together with it."""
    entries = given if isinstance(given, (list, tuple)) else []
    weighted = [isinstance(one, WeightedSet) or (isinstance(one, Mapping) and "path" in one) for one in entries]
    if not any(weighted):
        if epoch_of is not None:
            raise Refusal(f"data.epoch_of must be null where data.train has no weights, got {epoch_of!r}")
        return None
    if not all(weighted):
        raise Refusal("data.train must be sets with a path and a weight each, or all without, got some of both")
    found = [one if isinstance(one, WeightedSet) else _set_of(one) for one in entries]
    paths = [one.path for one in found]
    if len(set(paths)) < len(paths):
        raise Refusal(f"data.train must be of each path once, got {', '.join(paths)}")
    if epoch_of is not None and epoch_of not in paths:
        raise Refusal(f"data.epoch_of must be a path of data.train ({', '.join(paths)}), got {epoch_of!r}")
    if pairing_ratio < 1:
        raise Refusal(f"data.pairing_ratio must be 1 where data.train has weights, got {pairing_ratio:g}")
    if stratify:
        raise Refusal("data.stratify must be false where data.train has weights, got true")
    return found


def _set_of(entry: Mapping[str, Any]) -> WeightedSet:
    if set(entry) != {"path", "weight"}:
        raise Refusal(f"data.train must be of path and weight, got {', '.join(map(str, entry))}")
    return WeightedSet(**entry)


@dataclass(frozen=True, eq=False)
class Mix:
    """How rows of several sets follow each other.

    set_of: of each row, which set it is of; weights: of each set; epoch_of: the set of which an epoch holds every row
    once; None takes the largest size by weight, so that none is cut short.
    """

    set_of: Ints
    weights: Sequence[float]
    epoch_of: int | None = None

    @cached_property
    def rows(self) -> list[Ints]:
        """The rows of each set."""
        return [np.flatnonzero(self.set_of == k) for k in range(len(self.weights))]

    @cached_property
    def leading(self) -> int:
        """The set that says how long an epoch is."""
        if self.epoch_of is not None:
            return self.epoch_of
        return max(range(len(self.weights)), key=lambda k: (len(self.rows[k]) / self.weights[k], -k))

    @cached_property
    def sets(self) -> Ints:
        """Of each example of an epoch, which set it is drawn from."""
        given = [Fraction(str(weight)) for weight in self.weights]
        shares = [weight / sum(given) for weight in given]
        whole = lcm(*(share.denominator for share in shares))
        parts = [int(share * whole) for share in shares]
        wanted = len(self.rows[self.leading])
        period = _drawn(parts, self.leading, wanted)
        # After `whole` examples each set has had exactly its share, and what follows is the same again.
        again, left = divmod(wanted - 1, parts[self.leading])
        last = np.flatnonzero(period == self.leading)[left]
        return np.concatenate([np.tile(period, again), period[: last + 1]])

    @cached_property
    def counts(self) -> list[int]:
        """Examples of each set in an epoch."""
        return np.bincount(self.sets, minlength=len(self.weights)).tolist()

    def order(self, seed: int, epoch: int) -> Ints:
        """The rows of an epoch in their order. A set goes through all its rows, in an order of its own each time,
        before one is repeated, over the ends of epochs too."""
        found = np.empty(len(self.sets), dtype=np.int64)
        for k, (rows, count) in enumerate(zip(self.rows, self.counts)):
            turns, places = np.divmod(epoch * count + np.arange(count), len(rows))
            orders = np.empty(count, dtype=np.int64)
            for turn in np.unique(turns).tolist():
                shuffled = rows.tolist()
                random.Random(f"{seed}/{k}/{turn}").shuffle(shuffled)
                orders[turns == turn] = np.array(shuffled)[places[turns == turn]]
            found[self.sets == k] = orders
        return found

    def sentence(self, names: Sequence[str]) -> str:
        """What an epoch holds of each set."""
        told = []
        for name, rows, count, weight in zip(names, self.rows, self.counts, self.weights):
            least, more = divmod(count, len(rows))
            times = f"{least} to {least + 1} times" if more else f"{least} times" if least != 1 else "once"
            told.append(f"{name} (weight {weight:g}): {len(rows):,} rows, {count:,} examples, each {times}")
        return f"an epoch is every row of {names[self.leading]} once; {'; '.join(told)}"


def _drawn(parts: Sequence[int], leading: int, ends: int) -> Ints:
    """Which set each example is drawn from, of sets that have such parts of as many examples as the parts sum to: of
    that many, or until the leading set has had `ends`."""
    whole, drawn, found = sum(parts), [0] * len(parts), list[int]()
    while len(found) < whole and drawn[leading] < ends:
        free = (k for k, part in enumerate(parts) if drawn[k] * whole // part <= len(found))
        chosen = min(free, key=lambda k: (-(-(drawn[k] + 1) * whole // parts[k]), k))
        drawn[chosen] += 1
        found.append(chosen)
    return np.array(found, dtype=np.int64)


def mixed(sets: Sequence[WeightedSet], set_of: Ints, epoch_of: str | None) -> Mix:
    """How rows of such sets are mixed, of each of which `set_of` says its set. Raises `DataError` for a set of which
    nothing is left."""
    paths = [one.path for one in sets]
    mix = Mix(set_of, [one.weight for one in sets], None if epoch_of is None else paths.index(epoch_of))
    for path, held in zip(paths, mix.rows):
        if not len(held):
            raise DataError(f"data.train must be sets of one row to train on or more, got {path} with none")
    return mix
