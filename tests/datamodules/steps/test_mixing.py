"""Mixing sets by weights: quotas at every prefix, the end of an epoch, repeats, and what is refused."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from support import slow_rows as slow

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.mixing import Mix, WeightedSet, mixed, weighted_sets
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.runtime.refusal import Refusal


def mix_of(sizes: list[int], weights: list[float], epoch_of: int | None = None) -> Mix:
    return Mix(np.repeat(np.arange(len(sizes)), sizes), weights, epoch_of)


@pytest.mark.parametrize(
    ("sizes", "weights"),
    [
        ([300, 50], [0.7, 0.3]),
        ([40, 40, 40], [1, 1, 1]),
        ([500, 7, 90, 13], [0.61, 0.02, 0.3, 0.07]),
        ([9, 1000, 5], [5, 90, 5]),
    ],
)
def test_every_prefix_is_within_one_example_of_the_weights(sizes: list[int], weights: list[float]) -> None:
    found = mix_of(sizes, weights)
    shares = [Fraction(str(weight)) / sum(Fraction(str(one)) for one in weights) for weight in weights]
    counts = [0] * len(sizes)
    for t, k in enumerate(found.sets, 1):
        counts[k] += 1
        assert all(abs(count - share * t) < 1 for count, share in zip(counts, shares))
    assert counts == found.counts


@pytest.mark.parametrize(
    ("sizes", "weights", "epoch_of"),
    [
        ([300, 50], [0.7, 0.3], None),
        ([300, 50], [0.7, 0.3], 1),
        ([7, 21], [0.7, 2.1], 0),
        ([500, 7, 90, 13], [0.61, 0.02, 0.3, 0.07], None),
        ([40, 5], [0.123457, 1], None),
    ],
)
def test_sets_and_order_are_those_of_one_example_after_the_other(
    sizes: list[int], weights: list[float], epoch_of: int | None
) -> None:
    found = mix_of(sizes, weights, epoch_of)
    assert found.sets.tolist() == slow.mixed_sets(sizes, weights, found.leading)
    rows = [some.tolist() for some in found.rows]
    for epoch in (0, 3):
        assert found.order(5, epoch).tolist() == slow.mixed_order(found.sets.tolist(), rows, 5, epoch)


def test_an_epoch_ends_when_the_leading_set_was_seen_once() -> None:
    """Of 4 rows at 2/3 and 3 at 1/3, the first take 6 examples and the second 9: 9 are the longer epoch."""
    found = mix_of([4, 3], [2, 1])
    assert (found.leading, found.sets.tolist(), found.counts) == (1, [0, 0, 1] * 3, [6, 3])
    short = mix_of([4, 3], [2, 1], epoch_of=0)
    assert (short.sets.tolist(), short.counts) == ([0, 0, 1, 0, 0], [4, 1])
    assert sorted(row for row in short.order(seed=1, epoch=0) if row < 4) == [0, 1, 2, 3]


def test_a_repeated_set_goes_through_all_its_rows_before_one_comes_again_over_epochs_too() -> None:
    found = mix_of([20, 3], [1, 1])
    drawn = [row for epoch in range(3) for row in found.order(7, epoch).tolist() if row >= 20]
    assert len(drawn) >= 57
    for start in range(0, len(drawn) - 2, 3):
        assert sorted(drawn[start : start + 3]) == [20, 21, 22]
    again = mix_of([20, 3], [1, 1]).order(7, 1)
    assert found.order(7, 1).tolist() == again.tolist(), "of seed and epoch alone: resuming draws the same"
    assert found.order(7, 1).tolist() != found.order(8, 1).tolist() != found.order(8, 0).tolist()


def test_the_plans_steps_are_the_mix() -> None:
    found = mix_of([20, 3], [1, 1])
    plan = StepPlan([(4, 5)] * 23, 8, 100, seed=7, mix=found)
    assert len(plan) == -(-len(found.sets) // 8)
    assert [row for step in range(len(plan)) for row in plan.rows(2, step)] == found.order(7, 2).tolist()
    assert sorted(row for batch in plan.micro_batches(0, 0) for row in batch) == sorted(plan.rows(0, 0))


def test_the_sentence_counts_repeats() -> None:
    assert mix_of([4, 3], [2, 1], 0).sentence(["a", "b"]) == (
        "an epoch is every row of a once; a (weight 2): 4 rows, 4 examples, each once; "
        "b (weight 1): 3 rows, 1 examples, each 0 to 1 times"
    )


A, B = {"path": "a.jsonl", "weight": 0.7}, {"path": "b.jsonl", "weight": 0.3}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([A, "b.jsonl"], None, 1.0, False), "got some of both"),
        (([A, {"path": "b.jsonl"}], None, 1.0, False), "must be of path and weight, got path"),
        (([A, A], None, 1.0, False), "each path once"),
        (([A, {"path": "b.jsonl", "weight": 0}], None, 1.0, False), "weight must be > 0"),
        (([A, B], "c.jsonl", 1.0, False), r"must be a path of data.train \(a.jsonl, b.jsonl\), got 'c.jsonl'"),
        (("a.jsonl", "a.jsonl", 1.0, False), "must be null where data.train has no weights"),
        (([A, B], None, 0.5, False), "data.pairing_ratio must be 1"),
        (([A, B], None, 1.0, True), "data.stratify must be false"),
    ],
)
def test_what_is_refused(arguments: Any, sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence):
        weighted_sets(*arguments)


def test_a_set_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(DataError, match="got b with none"):
        mixed([WeightedSet("a", 1.0), WeightedSet("b", 1.0)], np.array([0, 0]), None)
