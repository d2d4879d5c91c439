"""Fixtures for data files."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.training import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows as JSON lines and returns the path."""

    def write(*rows: Any, name: str = "train.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write
