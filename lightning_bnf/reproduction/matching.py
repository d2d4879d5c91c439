"""Where methods are compared: at one gain in alignment, by all moments of their runs on the way there."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lightning_bnf.reproduction.curves import ALIGNMENT, Curve, aligned, common_rows
from lightning_bnf.runtime.refusal import Refusal

PART_OF_GAIN = 0.75
"""Of the gain in alignment that methods have in common: where they are compared."""


class Match(NamedTuple):
    """gain: what alignment is above the base's where methods are compared; last: (method, setting) -> the moment up to
    which a curve counts, the first that comes there, or its highest where none does."""

    gain: float
    last: Mapping[tuple[str, int | None], int]


def highest(found: Sequence[Curve]) -> dict[str, float]:
    """Of averaged curves: method -> the highest alignment that its rates come to, the base's at least."""
    best: dict[str, float] = {}
    for curve in found:
        best[curve.method] = max(best.get(curve.method, 0.0), *map(aligned, curve.moments))
    return best


def match(found: Sequence[Curve]) -> Match:
    """Where the methods of averaged curves are compared. Raises `Refusal` where one of them gains nothing."""
    best, start = highest(found), aligned(found[0].moments[0])
    least = min(best, key=best.__getitem__)
    if best[least] <= start:
        raise Refusal(
            f"methods must gain in alignment, got {least}, with {best[least]:.3f} at most, {start:.3f} of the base"
        )
    gain, last = PART_OF_GAIN * (best[least] - start), {}
    for curve in found:
        shares = [aligned(one) for one in curve.moments]
        there = (i for i, share in enumerate(shares) if share >= start + gain - 1e-7)  # they are rounded
        last[curve.method, curve.setting] = next(there, int(np.argmax(shares)))
    return Match(gain, last)


def counted(found: Sequence[Curve], method: str, measure: str, at: Match) -> np.ndarray:
    """(moments, rows): the measure at all moments that count of a method, curve by curve, each from the base on."""
    return np.array(
        [
            common_rows(curve, measure, one)
            for curve in found
            if curve.method == method
            for one in curve.moments[: at.last[method, curve.setting] + 1]
        ]
    )


def fitted(found: Sequence[Curve], measure: str, methods: Sequence[str], at: Match) -> dict[str, np.ndarray]:
    """Of averaged curves: method -> the measure's rows where it has gained so much."""
    rows = {}
    for method in methods:
        shares = counted(found, method, ALIGNMENT, at).mean(axis=1)
        rows[method] = weights(shares, at.gain) @ counted(found, method, measure, at)
    return rows


def weights(shares: np.ndarray, gain: float) -> np.ndarray:
    """What moments weigh in a local linear fit (Cleveland 1979) of a measure on alignment, where alignment is `gain`
    above that of the first, the base: (..., moments) both. They sum to 1, and some may be below 0.

    How near a moment is counts by a normal curve of width `gain`: small steps in alignment make small ones in the fit,
    where a reading off single curves jumps as one more of them comes to the level, or no longer does.
    """
    away = shares - shares[..., :1] - gain
    near = np.exp(-0.5 * (away / gain) ** 2)
    none, one, two = ((near * away**power).sum(axis=-1, keepdims=True) for power in (0, 1, 2))
    return near * (two - one * away) / (none * two - one**2)
