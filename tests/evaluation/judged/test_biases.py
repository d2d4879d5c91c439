"""A judge's biases by hand."""

import numpy as np
import pytest
from support.judged import games

from lightning_bnf.evaluation.judged.biases import biases


def test_by_hand() -> None:
    """q0: whoever is first wins, twice; q1: the model wins twice; q2 was shown once, and counts for length alone.

    Longer answers win both games of q0's model-first and q1, and q2's: of five decided games four.
    """
    verdicts = [
        ("q0", True, 1),
        ("q0", False, -1),
        ("q1", True, 2),
        ("q1", False, 1),
        ("q2", True, -1),
        ("q3", True, 0),
    ]
    style = [[9, 0, 0, 0]] * 4 + [[1, 0, 0, 0]] * 2
    found = biases(games(verdicts, style=style, base=[[5, 0, 0, 0]] * 6))
    assert found.first_wins is not None
    assert found.agreement is not None
    assert found.longer_wins is not None
    assert found.first_wins.value == pytest.approx(3 / 4), "first, first, first, second"
    assert found.agreement.value == pytest.approx(1 / 2)
    assert found.longer_wins.value == pytest.approx(4 / 5)


def test_nothing_to_tell_them_from_is_none() -> None:
    found = biases(games([("q0", True, 0), ("q1", True, np.nan)]))
    assert (found.first_wins, found.agreement, found.longer_wins) == (None, None, None)
