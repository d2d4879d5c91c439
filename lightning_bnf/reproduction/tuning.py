"""Whether a method needs its learning rate tuned, from the curves of its runs."""

from collections.abc import Sequence
from itertools import product
from math import comb

import numpy as np
import pandas as pd

from lightning_bnf.evaluation.statistics.intervals import Interval
from lightning_bnf.evaluation.statistics.paired import paired_difference
from lightning_bnf.reproduction.curves import ALIGNMENT, Curve, aligned, averaged, needed_seeds


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


def tuning(
    explored: Sequence[Curve], confirming: Sequence[Curve], of: str, against: str, seeds: Sequence[int]
) -> Interval | None:
    """What tuning the rate gains in alignment at the end, `of` less `against`: below 0 it needs less tuning.

    `explored` says which rate is a method's (`at_best_rate`), and what that has more than the mean of all rates is read
    in these seeds of `confirming`, paired by prompt and seed. Where a rate is read on what it was picked by, luck adds
    to the gain, most of all where rates differ least; and picks that have runs in common have luck in common, which no
    interval over these runs has in it: by each seed left out once, and half of the prompts, intervals held the truth in
    0.83 of simulated experiments. What luck the prompts are that both stages have, both methods have.

    None where one of the seeds is missing, or a picked rate.
    """
    gains = []
    for method in (of, against):
        rates = {curve.rate for curve in at_best_rate([one for one in explored if one.method == method])}
        passes = {
            (curve.rate, curve.seed): curve.moments[-1].values[ALIGNMENT]
            for curve in confirming
            if curve.method == method and curve.seed in seeds
        }
        grid = sorted({rate for rate, _ in passes})
        if not rates <= set(grid) or any(cell not in passes for cell in product(grid, seeds)):
            return None
        every = np.array([[passes[rate, seed] for seed in seeds] for rate in grid])  # (rates, seeds, prompts)
        gains.append((every[grid.index(rates.pop())] - every.mean(axis=0)).T)
    one = paired_difference(*gains)
    return Interval(one.value, one.low, one.high)


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
