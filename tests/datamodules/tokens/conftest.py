"""Fixtures for tokens."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_bnf.datamodules.reading.records import Row, read_rows


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    def rows(*stored: dict[str, Any]) -> list[Row]:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in stored))
        return read_rows(str(path))

    return rows
