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


def ended(method: str, rate: float, seed: int, passes: list[float]):
    made = run(method, seed, 0.6, 0.6, 1, setting=round(rate * 1e4), rate=rate)
    made["results"]["likelihood"]["points"][-1]["values"]["passes"] = passes
    return made


def test_what_tuning_gains_is_read_where_the_rate_was_not_picked():
    """Two rates, prompts and seeds. A's first rate passes the first prompt with both seeds, its second the second. Each
    half of the prompts picks the rate that does not pass the other: a gain of -0.5, where picking by what is read would
    have 0. B's rates are alike: 0. C's first rate passes all, its second nothing: 0.5, and 0.25 is B's and C's mean."""
    runs = [
        ended(method, rate, seed, passes)
        for seed in (1, 2, 3)
        for method, both in {"A": ([1, 0], [0, 1]), "B": ([1, 0], [1, 0]), "C": ([1, 1], [0, 0])}.items()
        for rate, passes in zip((1e-4, 2e-4), both)
    ]
    found = tuning(curves([BASE, *runs]), "A", [1, 2, 3])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((-0.75, -0.75, -0.75))
    found = tuning(curves([BASE, *runs]), "C", [1, 2, 3])
    assert found is not None
    assert found.value == pytest.approx(0.5 + 0.25)


def test_the_rate_is_picked_by_the_other_seeds():
    """A's first rate passes with the first seed alone, its second with the other two: these pick the second for the
    first seed (-0.5), and one of each, alike, the first for the others (-0.5). B gains nothing."""
    runs = [
        ended("A", rate, seed, [float((seed == 1) == (rate == 1e-4))] * 2)
        for seed in (1, 2, 3)
        for rate in (1e-4, 2e-4)
    ]
    runs += [ended("B", rate, seed, [1.0, 1.0]) for seed in (1, 2, 3) for rate in (1e-4, 2e-4)]
    found = tuning(curves([BASE, *runs]), "A", [1, 2, 3])
    assert found is not None
    assert found.value == pytest.approx(-0.5)


def test_tuning_is_of_stated_seeds_and_of_methods_with_a_grid():
    runs = [run(m, seed, 0.6, 0.9, 1, setting=i, rate=i * 1e-4) for m in "AB" for seed in (1, 2, 3) for i in (1, 2)]
    more = [run("D", 1, 0.6, 0.9, 1), run("A", 4, 0.6, 0.1, 1, setting=1)]
    found = tuning(curves([BASE, *runs]), "A", [1, 2, 3])
    assert found is not None
    assert tuning(curves([BASE, *runs, *more]), "A", [1, 2, 3]) == found
    assert tuning(curves([BASE, *runs]), "A", [1, 4]) is None
    assert tuning(curves([BASE, *runs[:6]]), "A", [1, 2, 3]) is None
    assert tuning(curves([BASE, *runs]), "D", [1, 2, 3]) is None
    assert tuning([], "A", [1, 2, 3]) is None


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
