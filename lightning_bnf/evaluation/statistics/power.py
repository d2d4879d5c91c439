"""What a comparison can see, before it is run: the chance to tell a true difference from 0."""

import numpy as np
from scipy import optimize, stats

from lightning_bnf.evaluation.statistics.paired import Components, satterthwaite
from lightning_bnf.runtime.arguments import AtLeastTwo, NonNegativeFloat, OpenUnitInterval, PositiveFloat, checked
from lightning_bnf.runtime.refusal import Refusal


def expected_error(
    prompts: int, seeds: int, variances: Components, besides: float = 0.0, by_seeds: bool = False
) -> tuple[float, float]:
    """The standard error of a paired difference that is to be expected, and its degrees of freedom. `besides` and
    `by_seeds`: as in `paired_difference`."""
    prompt = variances.rest + seeds * variances.prompt
    seed = variances.rest + prompts * variances.seed
    total = prompt + seed - variances.rest
    df = float(satterthwaite(total, prompt, seed, variances.rest, prompts, seeds)) if not by_seeds else seeds - 1.0
    return float(np.sqrt(total / (prompts * seeds) + besides**2)), df


@checked
def power(
    difference: PositiveFloat,
    prompts: AtLeastTwo,
    seeds: AtLeastTwo,
    variances: Components,
    level: OpenUnitInterval = 0.05,
    besides: NonNegativeFloat = 0.0,
    by_seeds: bool = False,
) -> float:
    """The chance that a true difference of this size comes out with p below `level` (of one test; of m tests under
    Holm's correction `level / m` is the careful choice). `besides` and `by_seeds`: as in `paired_difference`."""
    error, df = expected_error(prompts, seeds, variances, besides, by_seeds)
    if error == 0:
        return 1.0
    bound = stats.t.ppf(1 - level / 2, df)
    shift = difference / error
    wrong_side = np.nan_to_num(stats.nct.cdf(-bound, df, shift))  # scipy's is NaN where it is nil
    return float(stats.nct.sf(bound, df, shift) + wrong_side)


@checked
def smallest_difference(
    prompts: AtLeastTwo,
    seeds: AtLeastTwo,
    variances: Components,
    wanted: OpenUnitInterval = 0.8,
    level: OpenUnitInterval = 0.05,
    besides: NonNegativeFloat = 0.0,
    by_seeds: bool = False,
) -> float:
    """The difference that would be told from 0 with the chance `wanted`. `besides` and `by_seeds`: as in
    `paired_difference`."""
    error, _ = expected_error(prompts, seeds, variances, besides)
    if error == 0:
        return 0.0
    high = error

    def chance(difference: float) -> float:
        return power(difference, prompts, seeds, variances, level, besides, by_seeds)

    while chance(high) < wanted:
        high *= 2
    return float(optimize.brentq(lambda some: chance(some) - wanted, 1e-6 * error, high))


@checked
def seeds_needed(
    difference: PositiveFloat,
    prompts: AtLeastTwo,
    variances: Components,
    wanted: OpenUnitInterval = 0.8,
    level: OpenUnitInterval = 0.05,
    most: AtLeastTwo = 200,
) -> int:
    """The fewest seeds with which a difference of this size would be told from 0 with the chance `wanted`.

    Raises `Refusal` where `most` seeds do not suffice: then more prompts are needed too.
    """
    for seeds in range(2, most + 1):
        if power(difference, prompts, seeds, variances, level) >= wanted:
            return seeds
    raise Refusal(f"difference must be one that {most} seeds can see with {prompts} prompts, got {difference:g}")
