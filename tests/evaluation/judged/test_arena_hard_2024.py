"""Ratings of 2024 by hand, and against a second implementation that writes every battle down and asks scikit-learn."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from support.judged import drawn_pool, games

from lightning_bnf.evaluation.judged.arena_hard_2024 import at_equal_lengths, length_controlled, win_rates
from lightning_bnf.evaluation.judged.games import Games

POOL = drawn_pool()


def battles(pool: Games, controlled: bool) -> tuple[np.ndarray, np.ndarray]:
    """X and y as Arena-Hard's scripts lay them out: a row a battle, all rows twice, a tie won and lost once."""
    rows, won, lengths = [], [], []
    for model, verdict, style, base in zip(pool.model, pool.verdict, pool.style, pool.base_style):
        for _ in range(3 if abs(verdict) == 2 else 1):
            rows.append([np.log(10), *(-np.log(10) * (model == name) for name in pool.pool)])  # a is the baseline
            won.append(verdict)
            lengths.append((base[0] - style[0]) / (base[0] + style[0] + 1))
    x, verdicts, z = np.array(rows), np.array(won), np.array(lengths)
    if controlled:
        x = np.column_stack([x, (z - z.mean()) / z.std()])
    first, second = (verdicts < 0).astype(int), (verdicts <= 0).astype(int)
    return np.concatenate([x, x]), np.concatenate([first, second])


def test_win_rates_by_hand() -> None:
    """Three wins, a loss and a tie: 3.5 of 5 battles; a game without a verdict is missing."""
    found = games([("q0", False, 2), ("q0", True, -1), ("q1", False, 0), ("q1", True, np.nan)])
    (row,) = win_rates(found)
    assert (row.model, row.n, row.missing, row.rate.value) == ("m", 2, 1, 0.7)
    assert row.rating == pytest.approx(1000 + 400 * np.log10(0.7 / 0.3))


def test_win_rates_equal_a_fit_of_every_battle() -> None:
    x, y = battles(POOL, controlled=False)
    fit = LogisticRegression(fit_intercept=False, C=np.inf, tol=1e-8, max_iter=1000).fit(x, y).coef_[0]
    ratings = 400 * (fit - fit[0]) + 1000
    found = win_rates(POOL, resamples=10)
    assert [row.rate.value for row in found] == pytest.approx(1 / (1 + 10 ** ((1000 - ratings[1:]) / 400)), abs=1e-4)
    assert [row.rating for row in found] == pytest.approx(ratings[1:], abs=0.1)


def test_length_control_equals_a_fit_of_every_battle() -> None:
    x, y = battles(POOL, controlled=True)
    fit = LogisticRegression(fit_intercept=False, tol=1e-10, max_iter=5000).fit(x, y).coef_[0]
    found = [row.rate.value for row in length_controlled(POOL, resamples=2)]
    assert found == pytest.approx(expit(np.log(10) * (fit[1:-1] - fit[0])), abs=1e-4)


def test_the_control_is_read_at_the_pools_mean_length_and_beside_it_at_equal_ones() -> None:
    """One model that is always longer, and wins as it is longer: the published form leaves all of that in."""
    rng = np.random.default_rng(0)
    length = rng.integers(200, 600, 400).astype(float)
    won = np.where(rng.random(400) < expit(4 * (length - 200) / (length + 201)), 1.0, -1.0)
    style, base = np.column_stack([length, np.zeros((400, 3))]), np.tile([200.0, 0, 0, 0], (400, 1))
    pool = games([(str(i // 2), bool(i % 2), won[i]) for i in range(400)], style=style, base=base)
    (plain,), (published,), (equal,) = win_rates(pool), length_controlled(pool, resamples=100), at_equal_lengths(pool)
    assert plain.rate.low > 0.75
    assert published.rate.low > 0.7
    assert equal.rate.low < 0.5 < equal.rate.high


def test_intervals_over_questions_are_wider_than_over_battles_where_both_games_agree() -> None:
    """Each question's two strong verdicts are six equal battles: a question is one observation, not six."""
    rng = np.random.default_rng(0)
    won = rng.choice([2.0, -2.0], 100)
    (row,) = win_rates(games([(str(i // 2), bool(i % 2), won[i // 2]) for i in range(200)]))
    ours, theirs = row.rate.high - row.rate.low, row.published.high - row.published.low
    assert ours == pytest.approx(6**0.5 * theirs, rel=0.25)
    assert ours == pytest.approx(2 * 1.96 * (0.25 / 100) ** 0.5, rel=0.15)


def test_all_won_has_a_rating_and_an_interval() -> None:
    """Wilson's, of two questions."""
    (row,) = win_rates(games([("q0", False, 1), ("q1", True, 2)]))
    assert (row.rate.value, row.rate.high, row.published.high) == (1, pytest.approx(1), pytest.approx(1))
    assert row.rate.low == pytest.approx(2 / (2 + 1.959964**2))
    assert np.isfinite(row.rating)
