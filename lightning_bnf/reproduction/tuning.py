"""Whether a method needs its learning rate tuned, from the curves of its runs."""

from collections.abc import Sequence
from itertools import product
from math import comb

import numpy as np
import pandas as pd

from lightning_bnf.evaluation.statistics.paired import Difference, paired_difference
from lightning_bnf.reproduction.claims import Undecided
from lightning_bnf.reproduction.curves import ALIGNMENT, PLACES, Curve, aligned, averaged, needed_seeds


def trials(found: Sequence[Curve]) -> pd.DataFrame:
    """Whether a method needs tuning: the best alignment at the end that is to be expected of 1, 2, ... rates drawn
    without replacement (columns). Of means over the seeds that all methods share; raises `Refusal` where there is
    none."""
    ends: dict[str, list[float]] = {}
    for curve in averaged(found, needed_seeds(found)):
        ends.setdefault(curve.method, []).append(aligned(curve.moments[-1]))
    table = {
        method: {f"{i + 1}": value for i, value in enumerate(expected_best(values))} for method, values in ends.items()
    }
    return pd.DataFrame(table).T


def untuned(found: Sequence[Curve], of: str, against: str, seeds: Sequence[int]) -> Difference:
    """What share of its gain in alignment a method keeps whose rate is drawn from those that were run, and not tuned:
    `of` less `against`. Above 0 `of` needs less tuning.

    Gains are at the end of runs: (mean over rates - base) / (tuned rate - base). The rate is tuned for each seed by all
    others, so that a seed's luck picks none that it is read at. Paired by prompt and seed, each a linearised ratio
    (delta method), with t and a degree of freedom less than seeds, which have picks in common.

    Raises `Undecided` where one of the seeds is missing, or a tuned rate's gain is not told from 0.
    """
    values = []
    for method in (of, against):
        mine = [curve for curve in found if curve.method == method and curve.seed in seeds]
        passes = {(curve.rate, curve.seed): curve.moments[-1].values[ALIGNMENT] for curve in mine}
        rates = sorted({rate for rate, _ in passes})
        if not rates or any(cell not in passes for cell in product(rates, seeds)):
            raise Undecided("not run yet")
        every = np.array([[passes[rate, seed] for seed in seeds] for rate in rates])  # (rates, seeds, prompts)
        means = every.mean(axis=2)
        others = (means.sum(axis=1, keepdims=True) - means).round(PLACES)
        tuned = others.argmax(axis=0)  # of rates that align alike the lower
        base = mine[0].moments[0].values[ALIGNMENT]
        drawn = (every.mean(axis=0) - base).T
        best = (every[tuned, np.arange(len(seeds))] - base).T
        if paired_difference(best).low <= 0:
            raise Undecided(f"{method} hardly aligns")
        share = drawn.mean() / best.mean()
        values.append(share + (drawn - share * best) / best.mean())
    return paired_difference(values[0], values[1], by_seeds=True)


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
