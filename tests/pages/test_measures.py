"""Numbers of the shown rows, by hand."""

import math

import pytest
from support.page_runs import FIFTH, HALF, QUARTER, ROWS, snapshot

from lightning_bnf.pages.measures import measures
from lightning_bnf.pages.scores import Answer, ShownRow, Snapshot


def test_by_hand() -> None:
    """Chosen stay at 1/2; rejected fall from 1/2 to 1/5: odds from 1 to 1/4, log-probs by log(5/2)."""
    found = measures(ROWS, snapshot(ROWS, 2, HALF, FIFTH), snapshot(ROWS, 0, HALF, HALF))
    assert found.chosen == pytest.approx(HALF)
    assert found.chosen_shift == 0
    assert found.rejected_shift == pytest.approx(-math.log(5 / 2))
    assert found.margin == found.margin_shift == pytest.approx(math.log(5 / 2))
    assert found.accuracy == 1
    assert found.chosen_weight == pytest.approx(1, abs=1e-3)
    assert found.rejected_weight == pytest.approx(1 / 4, abs=1e-3)


def test_answers_count_alike_whatever_their_length() -> None:
    rows = [ShownRow("", "", "", [Answer(1, ["a", "b"], [True, True]), Answer(1, ["c"], [True])])]
    found = measures(rows, Snapshot(0, [[[-1.0, -3.0], [-4.0]]]), None)
    assert found.chosen == -3.0


def test_what_is_not_there_is_none() -> None:
    found = measures(ROWS, snapshot(ROWS, 2, HALF, QUARTER), None)
    assert (found.margin_shift, found.accuracy, found.chosen_weight) == (None, None, None)
    assert found.margin == pytest.approx(math.log(2))
    lone = [ShownRow("", "", "", [Answer(1, ["a"], [True])])]
    found = measures(lone, Snapshot(0, [[[-1.0]]]), Snapshot(0, [[[-2.0]]]))
    assert (found.margin, found.rejected, found.chosen_shift) == (None, None, 1.0)


def test_a_row_counts_as_gained_only_where_its_margin_grew() -> None:
    now = Snapshot(1, [[[HALF], [QUARTER]], [[HALF], [HALF]]])
    start = Snapshot(0, [[[HALF], [HALF]], [[HALF], [HALF]]])
    rows = [ShownRow(str(i), "", "", [Answer(1, ["a"], [True]), Answer(-1, ["b"], [True])]) for i in range(2)]
    assert measures(rows, now, start).accuracy == 0.5
