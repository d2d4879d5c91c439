"""Shifts as they are stored and read back."""

from pathlib import Path

import pandas as pd
import pytest

from lightning_bnf.evaluation.shift_report import Shifts, read_shifts
from lightning_bnf.evaluation.shifts import MEASURES


def test_files_that_analyze_did_not_write_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    for path in (tmp_path, tmp_path / "other.json"):
        with pytest.raises(ValueError, match="path must be the folder or the shifts"):
            read_shifts(path)


def test_differences_bear_their_sign() -> None:
    responses = pd.DataFrame({"policy": ["a", "a", "b", "b"], "id": ["x", "y"] * 2, "label": 1})
    responses[[*MEASURES]] = [[value] * len(MEASURES) for value in (3.0, 4.0, 1.0, 2.0)]
    table = Shifts(responses, pd.DataFrame(), "a")
    assert table.differences("a").loc["b"].tolist() == ["+2 [+2, +2]"] * len(MEASURES)
    assert table.differences("b").loc["a", "absolute logit shift"] == "-2 [-2, -2]"
