"""Paired differences by hand, and what they refuse."""

import numpy as np
import pytest
from scipy import stats

from lightning_bnf.evaluation.statistics.paired import (
    Components,
    careful_p,
    components,
    holm,
    paired_difference,
    pooled,
    shared_seed_square,
)


def test_a_difference_by_hand() -> None:
    """d is 0, 2 and 2, 4: mean 2. Prompts' means 1 and 3: 2 (1 + 1) / 1 = 4; seeds' as well; nothing is left. Variance
    (4 + 4 - 0) / 4 = 2, degrees of freedom 8^2 / (4^2 / 1 + 4^2 / 1) = 2, half width 4.303 sqrt(2) = 6.085."""
    found = paired_difference(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert (found.value, found.df, found.prompts, found.seeds) == (2.0, 2.0, 2, 2)
    assert found.error == pytest.approx(2**0.5)
    assert (found.low, found.high) == pytest.approx((2 - 6.085, 2 + 6.085), abs=1e-3)
    assert found.p == pytest.approx(2 * stats.t.sf(2**0.5, 2))
    assert components(np.array([[0.0, 2.0], [2.0, 4.0]])) == Components(2.0, 2.0, 0.0)


def test_another_error_is_added_to_that_of_prompts_and_seeds() -> None:
    """As above, a variance of 2; with 1.5^2 more it is 4.25, and the degrees of freedom stay."""
    first, second = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    found = paired_difference(first, second, besides=1.5)
    assert (found.error, found.df) == pytest.approx((4.25**0.5, 2.0))
    assert found.high == pytest.approx(2 + 4.303 * 4.25**0.5, abs=1e-3)
    d, shared = first - second, (4.0, 2.0)
    assert found.p == pytest.approx(2 * stats.t.sf(2 / 4.25**0.5, 2))
    assert careful_p(d, *shared, 1.5) >= found.p > paired_difference(d).p
    assert careful_p(d, *shared, 1e6) == pytest.approx(1.0, abs=1e-4)


def test_jackknifed_columns_have_a_degree_of_freedom_less_than_there_are() -> None:
    """Where prompts alone differ: as many as those have, unless columns are a jackknife's."""
    d = np.tile(np.random.default_rng(0).normal(size=(40, 1)), 3) + 1e-9 * np.random.default_rng(1).normal(size=(40, 3))
    plain, careful = paired_difference(d), paired_difference(d, by_seeds=True)
    assert (plain.df, careful.df) == (pytest.approx(39, abs=1e-3), 2)
    assert (plain.value, plain.error) == (careful.value, careful.error)
    assert careful.high == pytest.approx(careful.value + 4.3027 * careful.error, rel=1e-4)
    assert careful.p == pytest.approx(2 * stats.t.sf(abs(careful.value) / careful.error, 2))
    assert careful_p(d, 0.0, 2.0, by_seeds=True) == careful.p > careful_p(d, 0.0, 2.0)


def test_the_interval_of_another_level() -> None:
    found = paired_difference(np.random.default_rng(0).normal(size=(6, 4)))
    same, wider = found.interval(0.95), found.interval(0.99)
    assert (same.value, same.low, same.high) == (found.value, found.low, found.high)
    again = paired_difference(np.random.default_rng(0).normal(size=(6, 4)), level=0.99)
    assert (wider.low, wider.high) == (again.low, again.high)


def test_where_seeds_alone_differ_it_is_the_t_test_of_runs() -> None:
    runs = np.array([0.1, 0.3, 0.2])
    found = paired_difference(np.tile(runs, (50, 1)))
    test = stats.ttest_1samp(runs, 0.0)
    assert (found.df, found.p) == pytest.approx((2.0, test.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))


def test_where_prompts_alone_differ_it_is_the_t_test_of_prompts() -> None:
    prompts = np.random.default_rng(0).normal(size=40)
    found = paired_difference(np.tile(prompts[:, None], (1, 3)))
    test = stats.ttest_1samp(prompts, 0.0)
    assert (found.df, found.p) == pytest.approx((39.0, test.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))


def test_one_run_is_compared_with_every_run() -> None:
    runs, base = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[0.0], [1.0]])
    assert paired_difference(runs, base) == paired_difference(runs, np.hstack([base, base]))
    assert paired_difference(runs, 0.5).value == 0.25


def test_equal_differences_leave_no_doubt() -> None:
    same = paired_difference(np.ones((3, 3)), np.ones((3, 3)))
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    apart = paired_difference(np.ones((3, 3)))
    assert (apart.low, apart.high, apart.p) == (1.0, 1.0, 0.0)


def test_holm_by_hand() -> None:
    """In order 0.01, 0.03, 0.04: times 3, 2, 1: 0.03, 0.06, 0.04; none below the one before it, and none above 1."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"p must be numbers in \[0, 1\], got \[nan\]"):
        holm([float("nan")])


def test_a_lucky_comparison_is_not_trusted_among_others() -> None:
    """Three runs that agree by luck have a tiny p of their own; with the seeds of the others it is that of those."""
    rng = np.random.default_rng(0)
    parts = [0.1 + 0.2 * rng.normal(size=(1, 3)) + rng.normal(size=(50, 3)) for _ in range(5)]
    lucky = 0.1 + np.tile(np.array([[0.001, 0.0, -0.001]]), (50, 1)) + 0.01 * rng.normal(size=(50, 1))
    square, df = shared_seed_square([*parts, lucky])
    assert df == pytest.approx(2 * 6 / (1 + 5 / 4))
    assert paired_difference(lucky).p < 0.01 < careful_p(lucky, square, df)
    high = parts[0] + np.array([[1.0, 0.0, -1.0]])
    assert careful_p(high, 0.0, 1.0) >= paired_difference(high).p


def test_corrected_tests_err_no_more_often_than_they_say() -> None:
    """Six comparisons that share a method's runs, no true difference, seeds that differ much: Holm's p is below 0.05 in
    at most some 5 of 100 experiments."""
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(300):
        runs = 0.1 * rng.normal(size=(7, 1, 3)) + 0.4 * rng.normal(size=(7, 60, 3))
        parts = [runs[0] - runs[other] for other in range(1, 7)]
        shared = shared_seed_square(parts)
        wrong += min(holm([careful_p(d, *shared) for d in parts])) < 0.05
    assert wrong / 300 < 0.08


def test_pooled_variances_are_means_not_below_zero() -> None:
    assert pooled([Components(1.0, -0.2, 2.0), Components(3.0, 0.1, 4.0)]) == Components(2.0, 0.0, 3.0)
    with pytest.raises(ValueError, match="components must be of one comparison or more, got none"):
        pooled([])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.ones((1, 3)), 0.0, r"two prompts or more by two seeds or more, got an array of \(1, 3\)"),
        (np.ones((3, 1)), 0.0, r"got an array of \(3, 1\)"),
        (np.ones(3), 0.0, r"got an array of \(3,\)"),
        (np.ones((3, 2)), np.ones((2, 2)), r"second must be of \(3, 2\), as first is, or of one run, got an array of"),
        (np.ones((3, 2)), np.full((3, 2), np.nan), "must be finite numbers"),
    ],
)
def test_what_does_not_belong_together_is_refused(first: np.ndarray, second: np.ndarray | float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(first, second)
