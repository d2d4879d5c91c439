"""Faults: each row's place, the first few listed, all counted."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
from support.rows import ANSWER, GOOD, refused
from support.training import Write


def test_faults_are_collected_over_the_whole_file(write: Write) -> None:
    message = refused(write(GOOD, *[GOOD | {"chosen": []}] * 8), "8 faulty rows in all")
    assert [f"train.jsonl:{number}:" in message for number in range(1, 9)] == [False, *[True] * 5, False, False]


def test_rows_of_parquet_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ANSWER | {"label": 2}] * 2), path)
    refused(str(path), "train.parquet:1:", "train.parquet:2:", "'label'", "true (preferred)")
