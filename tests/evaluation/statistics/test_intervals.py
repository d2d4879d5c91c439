"""Intervals of one sample, by hand."""

import numpy as np
import pytest

from lightning_bnf.evaluation.statistics.intervals import Interval, paired_bootstrap, t_interval, wilson


def test_wilson_interval():
    """5 of 10, by the formula with z = 1.96: middle 0.5, half width 1.96 sqrt(0.025 + 1.96^2/400) / 1.384 = 0.263."""
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_bootstrap_is_seeded_and_near_the_normal_interval():
    """400 differences with standard deviation s: the half width is close to 1.96 s / 20."""
    difference = np.repeat([-1.0, 0.0, 1.0, 1.0], 100)
    low, high = paired_bootstrap(difference, seed=1)
    assert (low, high) == paired_bootstrap(difference, seed=1)
    assert (high - low) / 2 == pytest.approx(1.96 * difference.std() / 20, rel=0.05)
    assert paired_bootstrap(np.zeros(5)) == (0.0, 0.0)


def test_the_t_interval_of_three_by_hand():
    """Mean 2, standard deviation 1: 4.303 / sqrt(3) = 2.484 to both sides."""
    found = t_interval(np.array([1.0, 2.0, 3.0]))
    assert (found.value, found.low, found.high) == pytest.approx((2.0, -0.484, 4.484), abs=1e-3)
    assert t_interval(np.full(4, 0.5)) == Interval(0.5, 0.5, 0.5)
