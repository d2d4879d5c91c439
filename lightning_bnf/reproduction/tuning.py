"""Whether a method needs its learning rate tuned, from the curves of its runs."""

from collections.abc import Sequence
from itertools import product
from math import comb

import numpy as np
import pandas as pd

from lightning_bnf.evaluation.statistics.intervals import Interval
from lightning_bnf.evaluation.statistics.paired import paired_difference
from lightning_bnf.reproduction.curves import ALIGNMENT, PLACES, Curve, aligned, averaged, needed_seeds


def trials(found: Sequence[Curve]) -> pd.DataFrame:
    """Whether a method needs tuning: the best alignment at the end that is to be expected of 1, 2, ... rates drawn
    without replacement (columns), and `within`: the factor between the largest and the smallest rate whose alignment is
    within 0.02 of the best's. Of means over the seeds that all methods share; raises `Refusal` where there is none."""
    ends: dict[str, dict[float, float]] = {}
    for curve in averaged(found, needed_seeds(found)):
        ends.setdefault(curve.method, {})[curve.rate] = aligned(curve.moments[-1])
    table = {}
    for method, mean in ends.items():
        near = [rate for rate, value in mean.items() if value >= max(mean.values()) - 0.02]
        expected = expected_best(list(mean.values()))
        table[method] = {f"{i + 1}": value for i, value in enumerate(expected)} | {"within": max(near) / min(near)}
    return pd.DataFrame(table).T


def tuning(found: Sequence[Curve], of: str, seeds: Sequence[int]) -> Interval | None:
    """What tuning the rate gains in alignment at the end, `of` less the mean of the other methods with a grid: below 0
    it needs less tuning than they.

    A method's rate is the one that is best on half of the prompts with all seeds but one (the lowest of several), and
    what it has more than the mean of all rates is read on the other half with that seed: where a rate is read on what
    it was picked by, luck adds to the gain, and most of all where rates differ least. Paired by prompt and seed. None
    where one of the seeds is missing, or no other method has a grid.
    """
    passes: dict[str, dict[tuple[float, int], np.ndarray]] = {}
    for curve in found:
        passes.setdefault(curve.method, {})[curve.rate, curve.seed] = curve.moments[-1].values[ALIGNMENT]
    grids = {method: sorted({rate for rate, _ in some}) for method, some in passes.items()}
    wanted = {method: list(product(rates, seeds)) for method, rates in grids.items() if len(rates) > 1}
    if (
        of not in wanted
        or len(wanted) < 2
        or any(set(cells) - passes[method].keys() for method, cells in wanted.items())
    ):
        return None
    gains = {
        method: _gain(np.array([[passes[method][rate, seed] for seed in seeds] for rate in grids[method]]))
        for method in wanted
    }
    others = np.mean([gain for method, gain in gains.items() if method != of], axis=0)
    one = paired_difference(gains[of], others)
    return Interval(one.value, one.low, one.high)


def _gain(passes: np.ndarray) -> np.ndarray:
    """(rates, seeds, prompts) -> (prompts, seeds): what the rate that the others pick has more than the mean rate."""
    found, more = np.empty(passes.shape[:0:-1]), passes - passes.mean(axis=0)
    half = np.arange(passes.shape[2]) % 2 == 0
    for i, mine in product(range(passes.shape[1]), (half, ~half)):
        scores = np.delete(passes, i, axis=1)[:, :, ~mine].mean(axis=(1, 2))
        found[mine, i] = more[np.round(scores, PLACES).argmax(), i, mine]
    return found


def expected_best(values: Sequence[float]) -> list[float]:
    """The mean of the largest of k values drawn without replacement, k = 1, ..., n: the i-th smallest is it in
    C(i - 1, k - 1) of C(n, k) draws."""
    ordered, n = sorted(values), len(values)
    return [sum(comb(i, k - 1) * value for i, value in enumerate(ordered)) / comb(n, k) for k in range(1, n + 1)]


def at_best_rate(found: Sequence[Curve]) -> list[Curve]:
    """The curves of each method's rate that aligns best at the end, on average over the seeds that all methods share
    (of two that align alike, the lower): methods as one would use them who had tuned them for alignment alone. Raises
    `Refusal` where they share no seed."""
    best: dict[str, Curve] = {}
    for curve in sorted(averaged(found, needed_seeds(found)), key=lambda one: one.rate):
        if curve.method not in best or aligned(curve.moments[-1]) > aligned(best[curve.method].moments[-1]):
            best[curve.method] = curve
    return [curve for curve in found if curve.setting == best[curve.method].setting]
