"""Rewards with K, and the mixture of baselines, by hand."""

import numpy as np
import pytest
from support.judged import games

from lightning_bnf.evaluation.judged.wildbench_reward import mean_reward, mixture, rewards

VERDICTS = [("t0", True, 2), ("t1", False, 1), ("t2", True, -1), ("t3", False, -2), ("t4", True, np.nan)]
LENGTH = [[900, 0, 0, 0], [900, 0, 0, 0], [100, 0, 0, 0], [100, 0, 0, 0], [5, 0, 0, 0]]
BASE = [[100, 0, 0, 0], [100, 0, 0, 0], [500, 0, 0, 0], [900, 0, 0, 0], [5, 0, 0, 0]]
FOUGHT = games(VERDICTS, style=LENGTH, base=BASE)


def test_a_slight_win_by_length_is_a_tie_and_a_clear_one_is_not() -> None:
    assert rewards(FOUGHT).tolist()[:4] == [1, 0.5, -0.5, -1]
    assert rewards(FOUGHT, 500).tolist()[:4] == [1, 0, -0.5, -1]
    assert rewards(FOUGHT, 399).tolist()[:4] == [1, 0, 0, -1]


def test_the_mean_and_the_mixture() -> None:
    found = mean_reward(FOUGHT, 500)
    assert (found.n, found.missing, found.value.value) == (5, 1, -12.5)
    strong = games([("t0", True, -2), ("t1", True, -2)])
    assert mixture({"weak": FOUGHT, "strong": strong}).value.value == pytest.approx(-50)


def test_no_verdict_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="games against 'b' must be of one model, with a verdict, got 1 models"):
        mixture({"b": games([("t0", True, np.nan)])})
