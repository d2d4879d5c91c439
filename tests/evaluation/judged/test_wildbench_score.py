"""WildBench's score and task macro by hand."""

import numpy as np
import pytest

from lightning_bnf.evaluation.judged.wildbench_score import adjusted_score, group_scores, task_macro

SCORE = np.array([7.0, 9, 5, 1, np.nan])
TAGS = [["Math"], ["Planning", "Reasoning"], ["Editing", "Math"], ["Coding & Debugging"], ["Others"]]


def test_the_score_by_hand() -> None:
    """Mean 5.5 of four: (5.5 - 5) x 20 = 10; one could not be read."""
    found = adjusted_score(SCORE)
    assert (found.n, found.missing, found.value.value) == (4, 1, 10)
    assert found.value.low < 10 < found.value.high


def test_the_task_macro_by_hand() -> None:
    """Math (7 + 5) / 2 -> 20; planning 9 -> 80, counted once for two tags; creative 5 -> 0; coding 1 -> -80; no
    information: (1 x 20 + 1.25 x 80 + 0.5 x 0 - 1.25 x 80) / 4."""
    assert group_scores(SCORE, TAGS) == {
        "Creative Tasks": 0,
        "Planning & Reasoning": 80,
        "Math & Data Analysis": 20,
        "Coding & Debugging": -80,
    }
    found = task_macro(SCORE, TAGS)
    assert (found.n, found.missing, found.value.value) == (4, 1, 5)


def test_others_are_refused() -> None:
    with pytest.raises(ValueError, match="score must be numbers from 1 to 10"):
        adjusted_score(np.array([0.0]))
    with pytest.raises(ValueError, match=r"tags must be one or more of .*, got Cooking"):
        task_macro(np.array([5.0]), [["Cooking"]])
