"""JSON files that hold a list of rows, and what is no such file."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.rows import GOOD, assistant, only, refused, user

from lightning_bnf.datamodules.reading.records import read_rows

PLAIN = {"prompt": "Q", "chosen": "A", "rejected": "B"}


@pytest.fixture
def path(tmp_path: Path) -> Any:
    def write(content: object) -> str:
        file = tmp_path / "train.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return str(file)

    return write


@pytest.mark.parametrize(
    "content",
    [
        [GOOD, PLAIN],
        {"data": [GOOD, PLAIN]},
        {"version": "1.0", "tags": ["a", "b"], "rows": [GOOD, PLAIN]},
        f"\ufeff{json.dumps([GOOD, PLAIN])}",
        f"{json.dumps(GOOD)}\n{json.dumps(PLAIN)}\n",
    ],
    ids=["list", "data", "beside other values", "byte order mark", "lines"],
)
def test_two_rows_in_many_spellings(path: Any, content: object) -> None:
    name = path(content)
    rows = read_rows(name)
    assert [row.source for row in rows] == [f"{name}:1", f"{name}:2"]
    assert [row.prompt for row in rows] == [(user("What is 3 + 4?"),), "Q"]


def test_an_object_with_one_of_our_columns_is_a_row(path: Any) -> None:
    """Its list is of messages, not of rows."""
    assert only(path({"messages": [user("Q"), assistant("A")]})).format == "demonstration"
    assert only(path(GOOD)).format == "paired"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"train": [PLAIN], "test": [PLAIN]},
            "must be one list of JSON objects, or hold one, got an object with 2 of them (train, test)",
        ),
        ({"a": 1, "b": [1, 2]}, "got an object with a, b"),
        ([PLAIN, "Q"], "train.json:2: must be a JSON object, got a string: 'Q'"),
        ('[\n{"prompt": "Q",}]', "must be a list of JSON objects, got broken JSON at line 2, column 16"),
        ('[{"prompt": Infinity}]', "Infinity is not JSON"),
        ('{"prompt": "Q", "chosen": NaN, "rejected": "B"}', "column 'chosen' must be given in every row, got none"),
        ("[" * 100_000, "got broken JSON"),
        ('{"prompt": "Q"\n', "train.json:1: must be one JSON object on each line, got broken JSON"),
        ('{"prompt": "Q", "chosen": "A", "rejected": "B", "chosen": "C"}', "each key once, got 'chosen' twice"),
        (
            '[{"messages": [{"role": "user", "role": "x"}]}]',
            "must be JSON objects with each key once, got 'role' twice",
        ),
        ('{"prompt": "Q", "\\ud800": 1}', "columns must have names that can be written as UTF-8, got '\\ud800'"),
        ("7", "must be one JSON object on each line, got a number"),
        ([], "must be at least one row, got an empty file"),
        ("", "must be at least one row, got an empty file"),
    ],
)
def test_what_is_not_unambiguous_is_refused(path: Any, content: object, expected: str) -> None:
    refused(path(content), expected)


def test_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    file.write_bytes(b'[{"prompt": "caf\xe9"}]')
    refused(str(file), "train.json: must be a list of JSON objects, got broken JSON", "utf-8")
