"""How often the intervals of `paired_difference` hold the truth, on made-up runs that vary as measured ones do.

What prompts do is taken from measured passes: each prompt passes with method a and with method b by the chances that
its runs show (half a pass and half a failure added, so that none is certain). What seeds do is a shift of a run's
logits, normal, as wide as it must be for runs' means to have a stated variance. Every repeat draws prompts, shifts and
passes.
"""

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy import optimize, stats
from scipy.special import expit, logit

from lightning_bnf.evaluation.statistics.paired import differences, estimate
from lightning_bnf.runtime.arguments import AtLeastTwo, NonNegativeFloat, OpenUnitInterval, PositiveInt, checked
from lightning_bnf.runtime.refusal import Refusal

_NODES, _WEIGHTS = hermegauss(40)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@checked
def simulated_coverage(
    first: np.ndarray,
    second: np.ndarray,
    seed_variance: NonNegativeFloat,
    seeds: AtLeastTwo = 3,
    repeats: PositiveInt = 2000,
    seed: int = 0,
    level: OpenUnitInterval = 0.95,
) -> float:
    """The share of `repeats` made-up comparisons whose interval holds the true difference.

    Args:
        first: (prompts, runs) passes of method a, 0 or 1; second: of method b on the same prompts.
        seed_variance: between the differences of two runs, what seeds alone make (`components(...).seed`).
        seeds: runs of each method in a comparison, of as many prompts as there are.
        repeats, seed: how many comparisons, and what they are drawn from.
        level: of the intervals.

    Raises `Refusal` where passes are other numbers, or no shift of runs has that variance.
    """
    differences(first, second)
    if not np.isin(first, (0, 1)).all() or not np.isin(second, (0, 1)).all():
        raise Refusal("first and second must be passes, 0 or 1, got other numbers")
    one, other = _chances(first), _chances(second)
    spread = _spread(one, seed_variance)
    rng = np.random.default_rng(seed)
    truth = float(_WEIGHTS @ expit(logit(one)[:, None] + spread * _NODES).mean(axis=0) - other.mean())
    held = 0
    for _ in range(repeats):
        drawn = rng.integers(0, len(one), len(one))
        shifts = spread * rng.normal(size=seeds)
        passes = rng.random((len(one), seeds)) < expit(logit(one[drawn])[:, None] + shifts)
        others = rng.random((len(one), seeds)) < other[drawn][:, None]
        mean, variance, df = estimate(passes.astype(float) - others.astype(float))
        held += bool(abs(mean - truth) <= stats.t.ppf(0.5 + level / 2, df) * np.sqrt(variance))
    return held / repeats


def _chances(passes: np.ndarray) -> np.ndarray:
    """Each prompt's chance to pass: (prompts,)."""
    return (np.asarray(passes, dtype=float).sum(axis=1) + 0.5) / (passes.shape[1] + 1)


def _spread(chances: np.ndarray, variance: float) -> float:
    """The standard deviation of a run's shift (logits) that gives runs' mean passes this variance."""
    if variance == 0:
        return 0.0

    def above(spread: float) -> float:
        means = expit(logit(chances)[:, None] + spread * _NODES).mean(axis=0)
        return float(_WEIGHTS @ means**2 - (_WEIGHTS @ means) ** 2) - variance

    if above(10.0) < 0:
        raise Refusal(f"seed_variance must be one that passes can have, got {variance:g}")
    return float(optimize.brentq(above, 0.0, 10.0))
