"""Elo by hand, and against a second implementation that updates one battle at a time."""

import numpy as np
import pytest

from lightning_bnf.evaluation.judged.wildbench_elo import elo

EQUAL = np.full((1, 2), 100.0)


def test_one_battle_by_hand() -> None:
    """Both at 1000: the winner gains 4 x (1 - 1/2)."""
    found = elo(np.array([[8.0, 6.0]]), EQUAL, ["a", "b"])
    assert [row.published.value for row in found] == [1002, 998]
    assert elo(np.array([[8.0, 7.0]]), EQUAL, ["a", "b"])[0].published.value == 1000, "a margin of 1 is a tie"
    assert elo(np.array([[8.0, 2.0]]), EQUAL * [[1, 17]], ["a", "b"])[0].published.value == 1000, "so is 1,600 longer"
    started = elo(np.array([[5.0, 5.0]]), EQUAL, ["a", "b"], start={"a": 1400})
    assert [row.published.value for row in started] == pytest.approx(
        [1400 - 4 * (10 / 11 - 0.5), 1000 + 4 * (10 / 11 - 0.5)]
    )


def test_the_mean_over_orders_equals_one_battle_at_a_time() -> None:
    """Within the spread of orders: both are means over random orders of the same battles."""
    rng = np.random.default_rng(0)
    score = np.clip(np.round(rng.normal([4, 6, 7], 2, (60, 3))), 1, 10)
    length = rng.integers(1, 2500, (60, 3)).astype(float)
    battles = []
    for task in range(60):
        for a, b in ((0, 1), (0, 2), (1, 2)):
            difference = score[task, a] - score[task, b]
            tie = abs(difference) < 2 or abs(length[task, a] - length[task, b]) > 1500
            battles.append((a, b, 0.5 if tie else float(difference > 0)))
    means = []
    for _ in range(128):
        rating = [1000.0] * 3
        for place in rng.permutation(len(battles)):
            a, b, won = battles[place]
            expected = 1 / (1 + 10 ** ((rating[b] - rating[a]) / 400))
            rating[a] += 4 * (won - expected)
            rating[b] -= 4 * (won - expected)
        means.append(rating)
    found = elo(score, length, ["a", "b", "c"])
    assert [row.published.value for row in found] == pytest.approx(np.mean(means, axis=0), abs=2)
    assert all(row.published.high - row.published.low < row.over_tasks.high - row.over_tasks.low for row in found)


def test_missing_scores_and_empty_answers_take_no_part() -> None:
    score, length = np.array([[9.0, np.nan], [9, 1], [9, 1]]), np.array([[9.0, 9], [9, 0], [9, 9]])
    found = elo(score, length, ["a", "b"])
    assert [(row.n, row.published.value) for row in found] == [(3, 1002), (2, 998)]


def test_a_pool_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of two models or more, got \(3, 1\)"):
        elo(np.ones((3, 1)), np.ones((3, 1)), ["a"])
