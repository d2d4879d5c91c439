"""The table of architectures: written, read, counted."""

import json
import re
from pathlib import Path

from lightning_bnf.training.architectures.table import (
    NOT_BUILT,
    Architecture,
    Table,
    as_json,
    as_markdown,
    as_text,
    read_table,
    summary,
)

ROWS = (
    Architecture("a", ("shared_prompt", "packed", "padded"), ""),
    Architecture("b", ("padded",), "layout must be 'padded' | x"),
    Architecture("c", (), "source 'c': differs"),
    Architecture("d", (), f"{NOT_BUILT}KeyError: x"),
)
TABLE = Table("5.0", ROWS)


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text(as_json(TABLE))
    assert read_table(tmp_path / "table.json") == TABLE
    assert json.loads(as_json(TABLE))["architectures"][0]["layouts"] == ["shared_prompt", "packed", "padded"]


def test_the_counts_are_those_of_the_rows() -> None:
    assert summary(TABLE) == (
        "transformers 5.0: of 4 architectures 3 were built as tiny random models; 1 are trained with shared prompts, "
        "1 fall back to another layout, and 1 are refused with a sentence."
    )
    assert "b                           padded\n" in as_text(TABLE)
    assert "| b | padded | layout must be 'padded' \\| x |" in as_markdown(TABLE)


def test_the_stored_table_says_something_of_all_that_is_not_shared() -> None:
    stored = read_table()
    assert [row.name for row in stored.rows] == sorted(row.name for row in stored.rows)
    for row in stored.rows:
        assert ("shared_prompt" in row.layouts) or row.said, row.name
        assert not re.search(r"/\w+/", row.said), "no paths of the machine that it was made on"
