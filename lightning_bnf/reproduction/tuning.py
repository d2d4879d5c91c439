"""Whether a method needs its learning rate tuned, from the curves of its runs."""

from collections.abc import Sequence
from math import comb

import numpy as np
import pandas as pd

from lightning_bnf.evaluation.statistics.intervals import Interval, t_interval
from lightning_bnf.reproduction.curves import Curve, aligned, averaged, needed_seeds


def trials(found: Sequence[Curve]) -> pd.DataFrame:
    """Whether a method needs tuning: the best alignment at the end that is to be expected of 1, 2, ... rates drawn
    without replacement (columns), and `within`: the factor between the largest and the smallest rate whose alignment is
    within 0.02 of the best's. Means over seeds."""
    table = {}
    for method in dict.fromkeys(curve.method for curve in found):
        ends: dict[float, list[float]] = {}
        for curve in found:
            if curve.method == method:
                ends.setdefault(curve.rate, []).append(aligned(curve.moments[-1]))
        mean = {rate: float(np.mean(some)) for rate, some in ends.items()}
        near = [rate for rate, value in mean.items() if value >= max(mean.values()) - 0.02]
        expected = expected_best(list(mean.values()))
        table[method] = {f"{i + 1}": value for i, value in enumerate(expected)} | {"within": max(near) / min(near)}
    return pd.DataFrame(table).T


def tuning(found: Sequence[Curve], of: str) -> Interval | None:
    """What a rate that was drawn without a look loses in alignment at the end against the best of its grid, `of` less
    the mean of the other methods with a grid: below 0 it needs less tuning than they. Over seeds (t), of those that all
    have; None with fewer than two."""
    ends: dict[str, dict[int, list[float]]] = {}
    for curve in found:
        seeds = ends.setdefault(curve.method, {})
        seeds.setdefault(curve.seed, []).append(aligned(curve.moments[-1]))
    ends = {method: seeds for method, seeds in ends.items() if all(len(some) > 1 for some in seeds.values())}
    if of not in ends or len(ends) < 2:
        return None
    loss = pd.DataFrame(
        {
            method: {seed: max(some) - float(np.mean(some)) for seed, some in seeds.items()}
            for method, seeds in ends.items()
        }
    ).dropna()
    if len(loss) < 2:
        return None
    return t_interval((loss[of] - loss.drop(columns=of).mean(axis=1)).to_numpy())


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
