"""The difference of two methods on the same prompts and seeds, with t and the degrees of freedom that there are.

A run of method a and one of method b with the same seed saw the same rows and the same start, so what both do on prompt
i with seed s is subtracted first: d[i, s]. Prompts and seeds are both drawn from more, and cross each other:

    d[i, s] = delta + prompt[i] + seed[s] + rest[i, s]

The mean of d over n prompts and k seeds has the variance (MS_prompt + MS_seed - MS_rest) / (n k), of the mean squares
of the analysis of variance, and Satterthwaite's degrees of freedom: near k - 1 where seeds differ, near n - 1 where
prompts do. With three seeds that is often 2, and the interval is 4.30 standard errors wide on each side, not 1.96.
`coverage.py` simulates how often such intervals hold the truth: as often as they say, or a little more often where
seeds differ by less than a run's noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lightning_bnf.evaluation.statistics.intervals import Interval
from lightning_bnf.runtime.refusal import Refusal


@dataclass(frozen=True)
class Components:
    """Variances of d: between prompts, between seeds, and of the rest. Estimates: the first two may come out below 0.

    prompt, seed, rest: in squared units of the measure
    """

    prompt: float
    seed: float
    rest: float


@dataclass(frozen=True)
class Difference:
    """A mean difference with its 95 % interval.

    df: degrees of freedom; p: of the two-sided t test against 0; error: standard error
    """

    value: float
    low: float
    high: float
    p: float
    df: float
    error: float
    prompts: int
    seeds: int

    def interval(self, level: float) -> Interval:
        """The same with the interval of another level."""
        half = float(stats.t.ppf(0.5 + level / 2, self.df)) * self.error
        return Interval(self.value, self.value - half, self.value + half)


def paired_difference(
    first: np.ndarray,
    second: np.ndarray | float = 0.0,
    level: float = 0.95,
    besides: float = 0.0,
    by_seeds: bool = False,
) -> Difference:
    """What `first` has more than `second`, with an interval over prompts and seeds.

    Args:
        first: (prompts, seeds) what was measured of each run on each prompt; two or more of both.
        second: the same of the other method, prompts and seeds in the same order; (prompts, 1) where it has one run, as
            a base that is not trained; or the number to compare with (0.5 of win rates).
        level: of the interval.
        besides: a standard error of what the difference depends on beside these prompts and seeds.
        by_seeds: k - 1 degrees of freedom, where the columns have other seeds' runs in them, as a jackknife's have.

    Where all differences are equal, and nothing is `besides`, the interval is that number alone. Raises `Refusal` for
    other shapes, fewer than two prompts or seeds, and values that are not finite.
    """
    d = differences(first, second)
    value, variance, df = (float(found) for found in estimate(d))
    df = d.shape[1] - 1 if by_seeds else df
    error = (variance + besides**2) ** 0.5
    half = float(stats.t.ppf(0.5 + level / 2, df)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, df)) if error > 0 else float(value == 0)
    return Difference(value, value - half, value + half, p, df, error, *d.shape)


def differences(first: np.ndarray, second: np.ndarray | float = 0.0) -> np.ndarray:
    """first - second, (prompts, seeds), once it is certain that they belong together."""
    one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if one.ndim != 2 or min(one.shape) < 2:
        raise Refusal(f"first must be two prompts or more by two seeds or more, got an array of {one.shape}")
    if other.ndim and other.shape not in (one.shape, (len(one), 1)):
        raise Refusal(f"second must be of {one.shape}, as first is, or of one run, got an array of {other.shape}")
    d = one - other
    if not np.isfinite(d).all():
        raise Refusal("first and second must be finite numbers, got some that are not")
    return d


def mean_squares(d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of prompts, of seeds, of the rest; of (..., prompts, seeds) each (...)."""
    n, k = d.shape[-2:]
    mean = d.mean(axis=(-2, -1), keepdims=True)
    by_prompt, by_seed = d.mean(axis=-1, keepdims=True), d.mean(axis=-2, keepdims=True)
    rest = d - by_prompt - by_seed + mean
    return (
        k * ((by_prompt - mean) ** 2).sum(axis=(-2, -1)) / (n - 1),
        n * ((by_seed - mean) ** 2).sum(axis=(-2, -1)) / (k - 1),
        (rest**2).sum(axis=(-2, -1)) / ((n - 1) * (k - 1)),
    )


def estimate(d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of d (..., prompts, seeds), the mean's variance, and its degrees of freedom; each (...).

    The variance is at least that of prompts alone and that of seeds alone: the subtraction of MS_rest can go below.
    """
    n, k = d.shape[-2:]
    prompt, seed, rest = mean_squares(d)
    total = np.maximum(prompt + seed - rest, np.maximum(prompt, seed))
    return d.mean(axis=(-2, -1)), total / (n * k), satterthwaite(total, prompt, seed, rest, n, k)


def satterthwaite(
    total: np.ndarray | float,
    prompt: np.ndarray | float,
    seed: np.ndarray | float,
    rest: np.ndarray | float,
    n: int,
    k: int,
) -> np.ndarray:
    """Degrees of freedom of a sum of mean squares, at least those of the seeds."""
    spread = (
        np.asarray(prompt) ** 2 / (n - 1)
        + np.asarray(seed) ** 2 / (k - 1)
        + np.asarray(rest) ** 2 / ((n - 1) * (k - 1))
    )
    return np.clip(np.asarray(total) ** 2 / np.where(spread > 0, spread, 1.0), k - 1, n * k - 1)


def shared_seed_square(parts: Sequence[np.ndarray]) -> tuple[float, float]:
    """The seeds' mean square of several comparisons of one method with others, and its degrees of freedom.

    The comparisons share that method's runs, so their mean squares correlate (1/4, of normal values with a correlation
    of 1/2), and m of them are worth m / (1 + (m - 1) / 4).
    """
    squares = [float(mean_squares(d)[1]) for d in parts]
    return float(np.mean(squares)), (parts[0].shape[1] - 1) * len(parts) / (1 + (len(parts) - 1) / 4)


def careful_p(d: np.ndarray, seed_square: float, seed_df: float, besides: float = 0.0, by_seeds: bool = False) -> float:
    """The p-value to correct among several: the larger of the comparison's own, and of that with the seeds' mean square
    of all of them.

    With three seeds a comparison's own may come out far too small by luck, and the smallest of many p-values is the
    luckiest: at a level of 0.0016 such tests err up to six times as often (5 % ones do not).
    """
    n, k = d.shape
    prompt, _, rest = (float(found) for found in mean_squares(d))
    total = max(prompt + seed_square - rest, prompt, seed_square)
    own = paired_difference(d, besides=besides, by_seeds=by_seeds).p
    if total == 0:
        return own
    df = total**2 / (prompt**2 / (n - 1) + seed_square**2 / seed_df + rest**2 / ((n - 1) * (k - 1)))
    return max(own, 2 * float(stats.t.sf(abs(d.mean()) / np.sqrt(total / (n * k) + besides**2), df)))


def components(d: np.ndarray) -> Components:
    """How much of d (prompts, seeds) differs between prompts, between seeds, and else."""
    n, k = d.shape
    prompt, seed, rest = (float(found) for found in mean_squares(differences(d)))
    return Components((prompt - rest) / k, (seed - rest) / n, rest)


def pooled(found: Sequence[Components]) -> Components:
    """The mean over several comparisons, none below 0: with three seeds a single variance of seeds is mostly noise."""
    if not found:
        raise Refusal("components must be of one comparison or more, got none")
    means = np.mean([[one.prompt, one.seed, one.rest] for one in found], axis=0)
    return Components(*(max(0.0, float(mean)) for mean in means))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the order given: below 0.05 holds with at most 5 % of a wrong one among all."""
    values = np.asarray(p, dtype=float)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise Refusal(f"p must be numbers in [0, 1], got {list(p)}")
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(1.0, stepped)
    return [float(one) for one in corrected]
