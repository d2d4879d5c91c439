"""Where methods are compared: at one gain in alignment, by all moments of all their runs."""

from collections.abc import Mapping, Sequence

import numpy as np

from lightning_bnf.reproduction.curves import ALIGNMENT, Curve, aligned, common_rows, needed_seeds

PART_OF_GAIN = 0.75
"""Of the gain in alignment that methods have in common: where they are compared."""

Cells = Mapping[str, Mapping[str, np.ndarray]]
"""method -> measure -> (seeds, moments, rows): the moments of all its rates one behind the other, the base's first."""


def highest(found: Sequence[Curve]) -> dict[str, float]:
    """Of averaged curves: method -> the highest alignment that its rates come to, the base's at least."""
    best: dict[str, float] = {}
    for curve in found:
        best[curve.method] = max(best.get(curve.method, 0.0), *map(aligned, curve.moments))
    return best


def cells(found: Sequence[Curve], methods: Sequence[str], measures: Sequence[str]) -> Cells:
    """The runs of these methods, of the seeds that they share, as arrays. Raises `Refusal` where they share none."""
    mine = [curve for curve in found if curve.method in methods]
    seeds, table = needed_seeds(mine), {}
    for method in methods:
        runs = {(curve.setting, curve.seed): curve for curve in mine if curve.method == method}
        settings = dict.fromkeys(setting for setting, _ in runs)
        table[method] = {
            measure: np.array(
                [
                    [
                        common_rows(runs[setting, seed], measure, moment)
                        for setting in settings
                        for moment in runs[setting, seed].moments
                    ]
                    for seed in seeds
                ],
                dtype=float,
            )
            for measure in (ALIGNMENT, *measures)
        }
    return table


def shared_gain(shares: Mapping[str, np.ndarray], part: float = PART_OF_GAIN) -> np.ndarray:
    """(...): what alignment is above the base's where methods are compared, `part` of what the one gains that gains
    least. shares: method -> (..., moments), the base's first."""
    gains = [some.max(axis=-1) - some[..., 0] for some in shares.values()]
    return np.asarray(part * np.min(gains, axis=0))


def fitted(runs: Cells, measure: str, part: float = PART_OF_GAIN, width: float = 1.0) -> dict[str, np.ndarray]:
    """Of means over seeds: method -> (rows,) of the measure where methods are compared; not finite where one of them
    gains nothing."""
    shares = {method: own[ALIGNMENT].mean(axis=(0, 2)) for method, own in runs.items()}
    gain = shared_gain(shares, part)
    with np.errstate(invalid="ignore"):  # where there is no fit
        return {
            method: weights(shares[method], gain, width) @ own[measure].mean(axis=0) for method, own in runs.items()
        }


def without(runs: Cells, seed: int) -> Cells:
    """The same but for the seed at a place."""
    return {
        method: {measure: np.delete(some, seed, axis=0) for measure, some in own.items()}
        for method, own in runs.items()
    }


def weights(shares: np.ndarray, gain: float | np.ndarray, width: float = 1.0) -> np.ndarray:
    """What moments weigh in a local linear fit (Cleveland 1979) of a measure on alignment, where alignment is `gain`
    (...) above that of the first, the base: (..., moments) both. They sum to 1, and some may be below 0; where gain is
    not above 0, or no two moments are near, they are not finite.

    How near a moment is counts by a normal curve of width `gain` (times `width`): small steps in alignment make small
    ones in the fit.
    """
    gain = np.asarray(gain)[..., None]
    away = shares - shares[..., :1] - gain
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.where(gain > 0, np.exp(-0.5 * (away / (width * gain)) ** 2), np.nan)
        none, one, two = ((near * away**power).sum(axis=-1, keepdims=True) for power in (0, 1, 2))
        return np.asarray(near * (two - one * away) / (none * two - one**2))
