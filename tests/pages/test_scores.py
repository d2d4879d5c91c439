"""The files of token scores: what is written is read, to six digits, and other rows' scores are never shown."""

import math
from pathlib import Path

import pytest
from support.page_runs import ROWS, row

from lightning_bnf.pages.scores import (
    Snapshot,
    has_snapshot,
    read_about,
    read_rows,
    read_snapshot,
    read_steps,
    write_rows,
    write_snapshot,
)
from lightning_bnf.runtime.refusal import Refusal


def test_rows_come_back_with_every_character(tmp_path: Path) -> None:
    rows = [*ROWS, row("odd", "\x00 </script> \u2028", ["\ud800", "\u05d0", "\U0001f600"], [""])]
    write_rows(tmp_path, rows)
    assert read_rows(tmp_path) == rows


def test_log_probs_come_back_to_six_digits_and_what_is_not_finite_as_unknown(tmp_path: Path) -> None:
    write_snapshot(tmp_path, "end", Snapshot(3, [[[-1.2345678, -1.2345678e-5, -math.inf]]]))
    assert read_snapshot(tmp_path, "end") == Snapshot(3, [[[-1.23457, -1.23457e-05, None]]])


def test_new_rows_take_the_old_ones_scores_away(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS)
    write_snapshot(tmp_path, "start", Snapshot(0, [[[-1.0]]]))
    assert has_snapshot(tmp_path, "start")
    write_rows(tmp_path, ROWS[:1])
    assert not has_snapshot(tmp_path, "start")
    assert read_snapshot(tmp_path, "start") is None


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert (read_rows(tmp_path), read_about(tmp_path), read_steps(tmp_path)) == ([], {}, {})


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS)
    (tmp_path / "report/rows.json").write_text("[{")
    with pytest.raises(Refusal, match=r"rows.json must be JSON as a run writes it, got"):
        read_rows(tmp_path)
