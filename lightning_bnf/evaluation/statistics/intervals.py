"""Intervals (95 %) of one sample: Wilson's for a share, a bootstrap for a mean of values that were paired before, and
Student's."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

_Z = 1.959964  # the normal distribution's 97.5 % quantile


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(passed: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; unlike the normal one it stays in [0, 1] and is not empty at 0 of n. Where
    halves are counted, as of ties, it is a little too wide."""
    share, shrink = passed / n, 1 + _Z**2 / n
    middle = (share + _Z**2 / (2 * n)) / shrink
    half = _Z * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / shrink
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_bootstrap(difference: np.ndarray, seed: int = 0, resamples: int = 10_000) -> tuple[float, float]:
    """The 95 % interval of the mean of `difference`, one value per prompt."""
    rng = np.random.default_rng(seed)
    means = difference[rng.integers(0, len(difference), (resamples, len(difference)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def t_interval(values: np.ndarray) -> Interval:
    """The mean of two or more values, one a seed, a turn or a prompt, with Student's 95 % interval; of equal values it
    is that number alone."""
    mean, n = float(np.mean(values)), len(values)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1)) / sqrt(n)
    return Interval(mean, mean - half, mean + half)
