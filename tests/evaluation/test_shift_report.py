"""Shifts as they are stored and read back."""

from pathlib import Path

import pytest

from lightning_bnf.evaluation.shift_report import read_shifts


def test_files_that_analyze_did_not_write_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    for path in (tmp_path, tmp_path / "other.json"):
        with pytest.raises(ValueError, match="path must be the folder or the shifts"):
            read_shifts(path)
