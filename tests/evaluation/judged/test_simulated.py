"""Simulated judges: what they were told to be is what statistics find, and intervals hold the truth."""

import numpy as np
import pytest

from lightning_bnf.evaluation.judged.biases import biases
from lightning_bnf.evaluation.judged.simulated import STATISTICS, Judge, coverage, games, truth


def test_a_judge_has_the_biases_that_it_was_given() -> None:
    fair = biases(games(Judge(), 2000, 0), resamples=100)
    placed = biases(games(Judge(position_bias=1.0), 2000, 0), resamples=100)
    longer = biases(games(Judge(length_bias=3.0), 2000, 0), resamples=100)
    assert all(one.first_wins and one.agreement and one.longer_wins for one in (fair, placed, longer))
    assert fair.first_wins.low < 0.5 < fair.first_wins.high  # type: ignore[union-attr]
    assert placed.first_wins.low > 0.7  # type: ignore[union-attr]
    assert placed.agreement.high < fair.agreement.low  # type: ignore[union-attr]
    assert fair.longer_wins.low < 0.5 < fair.longer_wins.high  # type: ignore[union-attr]
    assert longer.longer_wins.low > 0.65  # type: ignore[union-attr]


def test_the_truth_is_that_of_very_many_questions() -> None:
    assert truth("Arena-Hard 2024 WR", Judge()) == pytest.approx(0.5, abs=0.005)
    assert truth("Arena-Hard 2024 WR", Judge(length_bias=3.0)) > 0.7
    assert truth("Arena-Hard 2024 LC", Judge(length_bias=3.0)) == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("name", ["Arena-Hard 2024 WR", "Arena-Hard 2025 score", "AlpacaEval 2 win rate"])
def test_intervals_hold_the_truth_as_often_as_they_say(name: str) -> None:
    """100 simulations, give or take three standard errors; Arena-Hard's published ones fall far short."""
    nominal = STATISTICS[name][1]
    found = coverage(name, Judge(advantage=0.3, position_bias=0.3), questions=100, simulations=100)
    assert found["ours"] == pytest.approx(nominal, abs=3 * (nominal * (1 - nominal) / 100) ** 0.5 + 0.01)
    if name.startswith("Arena-Hard"):
        assert found["published"] < nominal - 0.15


def test_length_control_takes_a_length_bias_out_at_equal_lengths_alone() -> None:
    """As published it is read at the pool's mean length, where the bias still is."""
    found = coverage("Arena-Hard 2024 LC", Judge(length_bias=3.0), questions=100, simulations=12)
    assert found["published"] == 0
    assert found["ours"] >= 9 / 12
    assert np.isfinite(found["mean"])
