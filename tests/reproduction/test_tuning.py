"""What tuning a learning rate gives, by hand."""

import numpy as np
import pytest
from support.frontier_runs import BASE, run

from lightning_bnf.evaluation.statistics.paired import paired_difference
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


def ended(method: str, rate: float, seed: int, passes: list[float]):
    made = run(method, seed, 0.6, 0.6, 1, setting=round(rate * 1e4), rate=rate)
    made["results"]["likelihood"]["points"][-1]["values"]["passes"] = passes
    return made


def cells(method: str, seed: int, by_rate: dict[float, list[float]]):
    return [ended(method, rate, seed, passes) for rate, passes in by_rate.items()]


def test_what_tuning_gains_is_read_in_other_runs_than_those_that_pick():
    """Two prompts. A's first rate is the best by the exploring seeds and the worst by the confirming ones: there it has
    0.5 less than the mean of both, by which it would have been picked with 0.5 more. B's second has 0.25 more on the
    first prompt with seed 11, and nothing else: a mean of 0.0625."""
    before = [
        *(one for seed in (1, 2) for one in cells("A", seed, {1e-4: [1, 1], 2e-4: [0, 0]})),
        *(one for seed in (1, 2) for one in cells("B", seed, {1e-4: [1, 0], 2e-4: [1, 1]})),
    ]
    after = [
        *(one for seed in (11, 12) for one in cells("A", seed, {1e-4: [0, 0], 2e-4: [1, 1]})),
        *cells("B", 11, {1e-4: [0.5, 1], 2e-4: [1, 1]}),
        *cells("B", 12, {1e-4: [1, 1], 2e-4: [1, 1]}),
    ]
    explored, confirming = curves([BASE, *before]), curves([BASE, *after])
    found = tuning(explored, confirming, "A", "B", [11, 12])
    own = paired_difference(np.array([[-0.5, -0.5], [-0.5, -0.5]]), np.array([[0.25, 0.0], [0.0, 0.0]]))
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((own.value, own.low, own.high))
    assert found.value == pytest.approx(-0.5 - 0.0625)
    more = curves([BASE, *after, *cells("A", 13, {1e-4: [1, 1], 2e-4: [0, 0]})])
    assert tuning(explored, more, "A", "B", [11, 12]) == found, "those stated, and no others"
    assert tuning(explored, more, "A", "B", [11, 13]) is None, "B has no seed 13"
    assert tuning(explored, curves([BASE, *after[1:]]), "A", "B", [11, 12]) is None, "A lacks a rate with seed 11"
    other = [one for seed in (11, 12) for one in cells("A", seed, {3e-4: [0, 0], 2e-4: [1, 1]})]
    assert tuning(explored, curves([BASE, *other, *after[4:]]), "A", "B", [11, 12]) is None, "none with the picked rate"


def test_what_trials_give_is_of_seeds_that_all_have():
    runs = [run("A", seed, 0.6, end, 1) for seed, end in ((1, 0.9), (2, 0.7))]
    assert trials(curves([BASE, *runs, run("B", 1, 0.6, 0.8, 1)])).loc["A", "1"] == pytest.approx(0.9)


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
