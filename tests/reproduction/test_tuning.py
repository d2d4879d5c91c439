"""What tuning a learning rate gives, by hand."""

import pytest
from support.frontier_runs import BASE, run

from lightning_bnf.reproduction.curves import curves
from lightning_bnf.reproduction.tuning import at_best_rate, expected_best, trials, tuning
from lightning_bnf.runtime.refusal import Refusal


def test_the_best_of_few_rates_that_are_drawn():
    """Of 1, 2 and 6: one draw is 3 on average, the best of two is 2, 6 or 6, and of three 6."""
    assert expected_best([6.0, 1.0, 2.0]) == pytest.approx([3.0, 14 / 3, 6.0])
    runs = [run("A", 1, 0.6, end, 1, setting=i, rate=rate) for i, (rate, end) in enumerate([(1e-4, 0.9), (4e-4, 0.89)])]
    table = trials(curves([BASE, *runs, run("B", 1, 0.6, 0.9, 1)]))
    assert table.loc["A", ["1", "2", "within"]].tolist() == pytest.approx([0.895, 0.9, 4.0])
    assert table.loc["B", "within"] == 1.0


def test_what_an_untuned_rate_loses():
    """Two rates: A loses 0.01 and 0.03 by the mean of them, B and C 0.05 and 0.075, 0.07 and 0.09: A less by 0.05 and
    0.0525, whose t interval is 12.706 x 0.00125 to both sides. D has one rate. One seed decides nothing."""
    ends = {"A": (0.02, 0.06), "B": (0.1, 0.15), "C": (0.14, 0.18)}
    runs = [
        run(method, seed, 0.6, 0.9 - gap * setting, 1, setting=setting)
        for method, gaps in ends.items()
        for seed, gap in enumerate(gaps)
        for setting in (0, 1)
    ]
    found = tuning(curves([BASE, *runs, run("D", 0, 0.6, 0.9, 1)]), "A")
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((-0.05125, -0.06713, -0.03537), abs=1e-5)
    assert tuning(curves([BASE, *(one for one in runs if one["seed"] == 0)]), "A") is None
    assert tuning([], "A") is None


def test_methods_at_the_rate_they_align_best_with():
    """A ends at 0.9 with its first rate and at 0.8 with its second, which was higher on the way. B's two end alike on
    average over the seeds 1 and 2, which both methods have: the lower is taken, whatever seed 3 says."""
    runs = [
        *(run("A", seed, 0.6, 0.9, 1, setting=1, rate=1e-4) for seed in (1, 2)),
        *(run("A", seed, 0.99, 0.8, 1, setting=2, rate=2e-4) for seed in (1, 2)),
        *(run("B", seed, 0.6, end, 1, setting=2, rate=2e-4) for seed, end in ((1, 0.7), (2, 0.9), (3, 0.99))),
        *(run("B", seed, 0.6, end, 1, setting=1, rate=1e-4) for seed, end in ((1, 0.9), (2, 0.7), (3, 0.5))),
    ]
    found = at_best_rate(curves([BASE, *runs]))
    assert [(one.method, one.setting, one.seed) for one in found] == [
        *(("A", 1, seed) for seed in (1, 2)),
        *(("B", 1, seed) for seed in (1, 2, 3)),
    ]
    with pytest.raises(Refusal, match="must have a seed that A, B share at every rate, got none"):
        at_best_rate(curves([BASE, run("A", 1, 0.6, 0.9, 1), run("B", 2, 0.6, 0.9, 1)]))
