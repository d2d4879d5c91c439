"""Large files, read row by row: the same rows and report as of all at once, and nothing is stored of faulty ones."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from support.rows import assistant, user

from lightning_bnf.datamodules.reading import files
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.tokens import stored
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.stored import StoredRows, load_stored

ROWS = [
    {"prompt": [user(f"{i} + {i}?")], "chosen": [assistant(f"{2 * i}")], "rejected": [assistant(f"{2 * i + 1}!")]}
    for i in range(1300)
]
ROWS[700] = ROWS[3]
ROWS[1200] = {**ROWS[1200], "rejected": [assistant("word " * 200)], "late": 1}
OPTIONS = DataOptions(max_length=120)


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "STREAMED_FROM", 0)
    monkeypatch.setattr(stored, "cache_folder", lambda: tmp_path / "cache")


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_rows_and_report_are_those_of_a_file_that_is_read_at_once(tmp_path: Path, tokenizer: Any, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=300)
    else:
        path.write_bytes(gzip.compress(lines(ROWS)) if name.endswith("gz") else lines(ROWS))
    wanted, report = load_rows(str(path), tokenizer, OPTIONS)
    found, texts = load_stored(str(path), tokenizer, OPTIONS, ())
    assert isinstance(found, StoredRows)
    assert list(found) == wanted
    assert texts == report.texts(tokenizer)
    assert "dropped 1 of 1,300 rows" in texts.head
    assert "1 rows repeat an earlier one" in texts.head
    again, texts_again = load_stored(str(path), tokenizer, OPTIONS, ())
    assert (list(again), texts_again) == (wanted, texts), "and opened as any other"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lines(ROWS[:600]) + b'{"prompt": 7}\n', r"rows\.jsonl:601: column 'chosen' must be given in every row"),
        (lines(ROWS[:600]) + b'{"prompt"\n', r"rows\.jsonl:601: must be one JSON object on each line"),
        (lines(ROWS[1200:1201]), "dropped rows must be at most allow_drop"),
        (b"", "must be at least one row, got an empty file"),
    ],
)
def test_of_a_faulty_file_nothing_is_stored(tmp_path: Path, tokenizer: Any, content: bytes, sentence: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        load_stored(str(path), tokenizer, DataOptions(max_length=120, allow_drop=0), ())
    assert not list((tmp_path / "cache").rglob("*.arrow"))
