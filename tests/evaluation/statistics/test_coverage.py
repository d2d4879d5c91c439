"""Intervals hold the truth as often as they say: made-up runs that vary as measured ones did."""

import numpy as np
import pytest

from lightning_bnf.evaluation.statistics.coverage import simulated_coverage

MIXED = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 1]] * 30)
OTHER = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 1]] * 30)


@pytest.mark.parametrize("variance", [0.002, 0.01])
def test_three_seeds_hold_the_truth_in_some_95_of_100(variance: float) -> None:
    """500 comparisons: 0.95 give or take three standard errors of 0.01."""
    assert simulated_coverage(MIXED, OTHER, variance, seeds=3, repeats=500, seed=1) == pytest.approx(0.955, abs=0.03)


def test_what_is_no_pass_or_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="must be passes, 0 or 1, got other numbers"):
        simulated_coverage(MIXED * 0.5, OTHER, 0.01)
    with pytest.raises(ValueError, match=r"seed_variance must be one that passes can have, got 0\.3"):
        simulated_coverage(MIXED, OTHER, 0.3)
