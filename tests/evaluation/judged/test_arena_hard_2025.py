"""Scores of 2025 by hand, and style control against a second implementation that writes every battle down."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from support.judged import drawn_pool, games

from lightning_bnf.evaluation.judged.arena_hard_2025 import differences, scores, style_controlled

POOL = drawn_pool(seed=1)


def test_a_question_without_one_verdict_is_dropped_whole() -> None:
    """q0: three wins and a loss; q1 misses a game, so its win does not count."""
    (row,) = scores(games([("q0", False, 2), ("q0", True, -1), ("q1", False, 1), ("q1", True, np.nan)]))
    assert (row.n, row.missing, row.rate.value) == (1, 1, 0.75)
    assert row.published.value == pytest.approx(0.75, abs=0.08)


def test_features_by_hand() -> None:
    """Length 30 and 10: 20/40. Six headers in 30 tokens: 6/31, none in the other: (6/31) / (6/31 + 1)."""
    found = differences(np.array([[30.0, 6, 0, 0], [0, 0, 0, 0]]), np.array([[10.0, 0, 0, 0], [0, 0, 0, 0]]))
    assert found[0] == pytest.approx([0.5, (6 / 31) / (6 / 31 + 1), 0, 0])
    assert found[1].tolist() == [0, 0, 0, 0]


def test_style_control_equals_a_fit_of_every_battle() -> None:
    features = np.stack(
        [
            np.concatenate(
                [
                    [(own[0] - base[0]) / (own[0] + base[0])],
                    [
                        (a / (own[0] + 1) - b / (base[0] + 1)) / (a / (own[0] + 1) + b / (base[0] + 1) + 1)
                        for a, b in zip(own[1:], base[1:])
                    ],
                ]
            )
            for own, base in zip(POOL.style, POOL.base_style)
        ]
    )
    copies = np.repeat(np.arange(len(POOL)), np.where(np.abs(POOL.verdict) == 2, 3, 1))
    z = (features[copies] - features[copies].mean(axis=0)) / features[copies].std(axis=0, ddof=1)
    models = np.stack([POOL.model[copies] == name for name in POOL.pool], axis=1).astype(float)
    x, won = np.column_stack([models, z]), POOL.outcome[copies]
    fit = LogisticRegression(fit_intercept=False, C=np.inf, tol=1e-10, max_iter=5000)
    fit.fit(np.concatenate([x, x]), np.repeat([1, 0], len(x)), sample_weight=np.concatenate([won, 1 - won]))
    found = style_controlled(POOL, resamples=20)
    assert [row.rate.value for row in found] == pytest.approx(expit(fit.coef_[0][:3]), abs=1e-4)
    assert [row.published.value for row in found] == pytest.approx([row.rate.value for row in found], abs=0.03)
    assert all(row.rate.low < row.rate.value < row.rate.high for row in found)


def test_a_style_that_never_differs_takes_no_part() -> None:
    (plain,), (controlled,) = (
        function(games([(str(i // 2), bool(i % 2), 1 if i % 5 else -1) for i in range(100)]))
        for function in (scores, style_controlled)
    )
    assert controlled.rate.value == pytest.approx(plain.rate.value, abs=1e-5)
