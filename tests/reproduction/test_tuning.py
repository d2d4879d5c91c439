"""What tuning a learning rate gives, by hand."""

import numpy as np
import pytest
from support.frontier_runs import BASE, run

from lightning_bnf.evaluation.statistics.paired import paired_difference
from lightning_bnf.reproduction.claims import Undecided
from lightning_bnf.reproduction.curves import curves
from lightning_bnf.reproduction.tuning import at_best_rate, expected_best, trials, untuned
from lightning_bnf.runtime.refusal import Refusal


def test_the_best_of_few_rates_that_are_drawn():
    """Of 1, 2 and 6: one draw is 3 on average, the best of two is 2, 6 or 6, and of three 6."""
    assert expected_best([6.0, 1.0, 2.0]) == pytest.approx([3.0, 14 / 3, 6.0])
    runs = [run("A", 1, 0.6, end, 1, setting=i, rate=rate) for i, (rate, end) in enumerate([(1e-4, 0.9), (4e-4, 0.89)])]
    table = trials(curves([BASE, *runs, run("B", 1, 0.6, 0.9, 1)]))
    assert table.loc["A"].tolist() == pytest.approx([0.895, 0.9])
    assert table.loc["B", "1"] == pytest.approx(0.9)


def ended(method: str, rate: float, seed: int, passes: list[float]):
    made = run(method, seed, 0.6, 0.6, 1, setting=round(rate * 1e4), rate=rate)
    made["results"]["likelihood"]["points"][-1]["values"]["passes"] = passes
    return made


def cells(method: str, seed: int, by_rate: dict[float, list[float]]):
    return [ended(method, rate, seed, passes) for rate, passes in by_rate.items()]


def test_a_rate_is_tuned_by_the_other_seeds():
    """The base passes half. A ends at 0.9 with its first rate, at 0.6 with its second but for seed 13, which ends at
    1 and is read at the first rate all the same; its luck is in the mean over rates alone. B's two end alike."""
    runs = [
        *(one for seed in (11, 12) for one in cells("A", seed, {1e-4: [0.9, 0.9], 2e-4: [0.6, 0.6]})),
        *cells("A", 13, {1e-4: [0.9, 0.9], 2e-4: [1, 1]}),
        *(one for seed in (11, 12, 13) for one in cells("B", seed, {1e-4: [0.8, 0.8], 2e-4: [0.8, 0.8]})),
    ]
    found = curves([BASE, *runs])
    one = untuned(found, "A", "B", [11, 12, 13])
    assert one.value == pytest.approx((3 * 0.4 + 0.1 + 0.1 + 0.5) / 6 / 0.4 - 1)


def test_of_rates_that_align_alike_the_lower_is_tuned():
    """Shares of prompts in another order, whose sums differ in their last digit, end alike."""
    rng = np.random.default_rng(0)
    runs = []
    for seed in range(11, 18):
        runs += cells("A", seed, {1e-4: (found := rng.random(2) / 3 + 0.6).tolist(), 2e-4: found[::-1].tolist()})
        runs += cells("B", seed, {1e-4: found.tolist(), 2e-4: found.tolist()})
    runs[2]["results"]["likelihood"]["points"][-1]["values"]["passes"][0] += 1e-12
    one = untuned(curves([BASE, *runs]), "A", "B", range(11, 18))
    assert one.value == pytest.approx(0, abs=1e-9)
    assert one.error > 0.001, "the first rate's prompts are those of the mean over rates no more"


def test_its_interval_is_of_linearised_ratios():
    """By hand, on passes that are drawn: the first rate is the best of every seed."""
    rng = np.random.default_rng(4)
    ends = {
        (m, r, s): rng.random(6) * 0.3 + (0.6 if r == 1e-4 else 0.4)
        for m in "AB"
        for r in (1e-4, 2e-4)
        for s in (1, 2, 3)
    }
    runs = [ended(method, rate, seed, passes.tolist()) for (method, rate, seed), passes in ends.items()]
    base = run("Base", 1, 0.0, 0.5, 0.0)
    base["results"]["likelihood"]["points"][-1]["values"]["passes"] = [0.5] * 6
    one = untuned(curves([base, *runs]), "A", "B", [1, 2, 3])

    def linear(method: str):
        first, second = (np.array([ends[method, rate, seed] - 0.5 for seed in (1, 2, 3)]).T for rate in (1e-4, 2e-4))
        share = (first + second).mean() / 2 / first.mean()
        return share, share + ((first + second) / 2 - share * first) / first.mean()

    (a, first), (b, second) = linear("A"), linear("B")
    own = paired_difference(first, second, by_seeds=True)
    assert (one.value, one.low, one.high) == pytest.approx((own.value, own.low, own.high))
    assert own.value == pytest.approx(a - b)


def test_what_cannot_be_asked_of_tuning():
    runs = [one for seed in (11, 12) for one in cells("A", seed, {1e-4: [0.9, 0.9], 2e-4: [0.6, 0.6]})]
    runs += [one for seed in (11, 12) for one in cells("B", seed, {1e-4: [0.8, 0.8], 2e-4: [0.6, 0.6]})]
    found = curves([BASE, *runs])
    for seeds in ([11, 13], [13, 14]):
        with pytest.raises(Undecided, match="not run yet"):
            untuned(found, "A", "B", seeds)
    with pytest.raises(Undecided, match="not run yet"):
        untuned(found[1:], "A", "B", [11, 12])
    with pytest.raises(Undecided, match="not run yet"):
        untuned(found, "A", "C", [11, 12])
    idle = [one for seed in (11, 12) for one in cells("C", seed, {1e-4: [0.5, 0.6], 2e-4: [0.5, 0.4]})]
    with pytest.raises(Undecided, match="C hardly aligns"):
        untuned(curves([BASE, *runs, *idle]), "A", "C", [11, 12])


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
