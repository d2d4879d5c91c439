"""Power: known values of the t test, and what made-up experiments show."""

import numpy as np
import pytest

from lightning_bnf.evaluation.statistics.paired import Components, paired_difference
from lightning_bnf.evaluation.statistics.power import expected_error, power, seeds_needed, smallest_difference

SEEDS_ONLY = Components(0.0, 1.0, 0.0)


def test_with_seeds_alone_it_is_the_power_of_the_t_test() -> None:
    """Ten runs, a difference of one standard deviation, 5 %: 0.803, as tables of the t test print it."""
    assert power(1.0, 500, 10, SEEDS_ONLY) == pytest.approx(0.803, abs=1e-3)
    assert smallest_difference(500, 10, SEEDS_ONLY, wanted=0.803) == pytest.approx(1.0, abs=2e-3)
    assert seeds_needed(1.0, 500, SEEDS_ONLY) == 10


def test_errors_by_hand() -> None:
    """10 prompts, 5 seeds: 0.5 / 10 + 0.2 / 5 + 1 / 50 = 0.11."""
    error, df = expected_error(10, 5, Components(0.5, 0.2, 1.0))
    assert error == pytest.approx(0.11**0.5)
    # mean squares 1 + 5 * 0.5, 1 + 10 * 0.2, 1: total 3.5 + 3 - 1 = 5.5
    assert df == pytest.approx(5.5**2 / (3.5**2 / 9 + 3**2 / 4 + 1 / 36))


def test_it_is_the_share_of_experiments_that_see_the_difference() -> None:
    rng, seen = np.random.default_rng(0), 0
    for _ in range(400):
        d = 0.3 + 0.2 * rng.normal(size=(1, 4)) + 0.5 * rng.normal(size=(60, 1)) + rng.normal(size=(60, 4))
        seen += paired_difference(d).p < 0.05
    assert power(0.3, 60, 4, Components(0.25, 0.04, 1.0)) == pytest.approx(seen / 400, abs=0.07)


def test_what_comes_besides_adds_to_the_error_and_does_not_shrink_with_seeds() -> None:
    variances = Components(0.5, 0.2, 1.0)
    (error, df), (more, same) = (expected_error(10, 5, variances, besides) for besides in (0.0, 0.3))
    assert (more, same) == (pytest.approx((error**2 + 0.09) ** 0.5), df)
    seen = smallest_difference(10, 5, variances, besides=0.3)
    assert power(seen, 10, 5, variances, besides=0.3) == pytest.approx(0.8)
    assert smallest_difference(500, 200, SEEDS_ONLY, besides=0.3) == pytest.approx(
        0.3 * smallest_difference(500, 200, SEEDS_ONLY) * 200**0.5, rel=0.03
    ), "at 200 seeds the seeds' own error, 0.07, is little beside 0.3"


def test_of_a_jackknife_less_is_seen() -> None:
    variances = Components(0.5, 0.0, 1.0)
    (error, df), (same, fewer) = (expected_error(10, 5, variances, 0.1, by_seeds) for by_seeds in (False, True))
    assert (same, fewer) == (error, 4)
    assert df > 4
    seen = smallest_difference(10, 5, variances, besides=0.1, by_seeds=True)
    assert seen > smallest_difference(10, 5, variances, besides=0.1)
    assert power(seen, 10, 5, variances, besides=0.1, by_seeds=True) == pytest.approx(0.8)


def test_more_prompts_alone_never_suffice() -> None:
    variances = Components(0.01, 0.003, 0.15)
    assert smallest_difference(120, 3, variances) > smallest_difference(2000, 3, variances) > 0.1
    with pytest.raises(ValueError, match=r"difference must be one that 20 seeds can see with 5 prompts, got 0\.01"):
        seeds_needed(0.01, 5, variances, most=20)


def test_without_variance_all_is_seen() -> None:
    nothing = Components(0.0, 0.0, 0.0)
    assert (power(0.1, 5, 2, nothing), smallest_difference(5, 2, nothing)) == (1.0, 0.0)
    with pytest.raises(ValueError, match="seeds must be >= 2, got 1"):
        power(0.1, 5, 1, nothing)
