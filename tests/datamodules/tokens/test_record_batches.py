"""Rows as record batches: the same rows come back, in few batches, whatever pieces they were written in."""

import json
from pathlib import Path

import numpy as np
import pytest
from support import slow_rows as slow

from lightning_bnf.datamodules.tokens import record_batches
from lightning_bnf.datamodules.tokens.record_batches import SCHEMA, StoredBatch, batch_of, merged
from lightning_bnf.datamodules.tokens.stored import write_batches, write_rows

ROWS = slow.some_rows(100)


def test_rows_come_back_as_they_were() -> None:
    batch = StoredBatch(batch_of(ROWS))
    assert len(batch) == 100
    assert [batch.row(i) for i in range(100)] == ROWS
    assert [batch.text(i) for i in range(100)] == [row.prompt for row in ROWS]
    assert batch.arrays(3).trained.dtype == bool


def test_nothing_is_a_batch_too() -> None:
    batch = batch_of([])
    assert (batch.num_rows, batch.schema) == (0, SCHEMA)
    assert len(StoredBatch(batch).columns()) == 0


@pytest.mark.parametrize(
    ("rows", "size", "sizes"), [(40, 2**26, [40, 40, 20]), (1000, 1, [10] * 10), (1000, 2**26, [100])]
)
def test_pieces_are_merged_up_to_a_count_and_a_size(
    monkeypatch: pytest.MonkeyPatch, rows: int, size: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(record_batches, "_ROWS", rows)
    monkeypatch.setattr(record_batches, "_BYTES", size)
    found = [*merged(batch_of(ROWS[start : start + 10]) for start in range(0, 100, 10))]
    assert [batch.num_rows for batch in found] == sizes
    held = map(StoredBatch, found)
    assert [batch.row(i) for batch in held for i in range(len(batch))] == ROWS


def test_several_batches_are_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_rows(tmp_path / "whole.arrow", ROWS)
    monkeypatch.setattr(record_batches, "_ROWS", 30)
    several = write_batches(tmp_path / "several.arrow", (batch_of(ROWS[i : i + 30]) for i in range(0, 100, 30)))
    assert [*several] == [*whole] == ROWS
    places = np.random.default_rng(0).permutation(100)
    assert several.content(places) == whole.content(places)
    assert several.content(places[:0]) == b""
    assert several.columns.first.tolist() == whole.columns.first.tolist()


def test_what_a_row_has_no_value_of_is_null() -> None:
    batch = batch_of(ROWS[:1])
    given = {name: batch.column(name)[0].as_py() for name in ("prompt_id", "max_new_tokens", "verifier")}
    assert {name: None if text is None else json.loads(text) for name, text in given.items()} == {
        name: getattr(ROWS[0], name) for name in given
    }
