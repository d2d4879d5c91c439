"""Fixtures for benchmarks: nothing is downloaded, and rows are files."""

import json

import pytest
from support.benchmark_rows import ROWS


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """The rows as files, by task."""
    for task, rows in ROWS.items():
        (tmp_path / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {task: str(tmp_path / f"{task}.jsonl") for task in ROWS}
