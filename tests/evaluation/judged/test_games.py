"""Verdicts as battles, and draws that keep what belongs together."""

import numpy as np
import pytest
from support.judged import games

from lightning_bnf.evaluation.judged.games import Games, draws_of_battles, draws_of_questions, joined

FOUGHT = games([("q0", False, 2), ("q0", True, -1), ("q1", False, 0), ("q1", True, np.nan)])


def test_much_better_is_three_battles_and_no_verdict_is_none() -> None:
    assert FOUGHT.weight.tolist() == [3, 1, 1, 0]
    assert FOUGHT.outcome.tolist()[:3] == [1, 0, 0.5]
    assert len(FOUGHT.judged) == 3


def test_pools_are_joined() -> None:
    both = joined([FOUGHT, games([("q0", True, 1)], model="other")])
    assert (len(both), both.pool) == (5, ["m", "other"])


def test_a_questions_games_are_drawn_together_and_battles_singly() -> None:
    questions = draws_of_questions(FOUGHT.question, 0, 50)
    assert (questions[:, 0] == questions[:, 1]).all()
    assert (questions[:, [0, 2]].sum(axis=1) == 2).all()
    battles = draws_of_battles(FOUGHT.weight, 0, 50)
    assert (battles.sum(axis=1) == 5).all()
    assert (battles[:, 3] == 0).all()
    assert (battles[:, 0] != battles[:, 1]).any()


def test_what_are_no_games_is_refused() -> None:
    with pytest.raises(ValueError, match="verdict must be 2, 1, 0, -1, -2 or NaN, got other numbers"):
        games([("q", True, 0.5)])
    with pytest.raises(ValueError, match="games must be arrays of"):
        Games(*[np.zeros(2)] * 4, np.zeros((2, 4)), np.zeros((3, 4)))
