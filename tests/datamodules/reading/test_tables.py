"""Rows in memory are read and checked as those of files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from datasets import Dataset, DatasetDict
from support.rows import GOOD, only, refused, user
from support.training import Write

from lightning_bnf.datamodules.reading.records import read_rows
from lightning_bnf.datamodules.reading.tables import Table, sources_of
from lightning_bnf.runtime.refusal import Refusal

SCORED = {"prompt": "Q", "chosen": "A", "rejected": "B", "score_chosen": 2.0, "score_rejected": 1.0}


def as_arrays(row: dict[str, Any]) -> dict[str, Any]:
    """As pandas reads lists from Parquet."""
    return {name: np.array(value, dtype=object) if isinstance(value, list) else value for name, value in row.items()}


@pytest.mark.parametrize("row", [GOOD, SCORED], ids=["messages", "strings"])
@pytest.mark.parametrize(
    "make",
    [
        list,
        pandas.DataFrame,
        Dataset.from_list,
        lambda rows: pandas.DataFrame([as_arrays(row) for row in rows]),
        lambda rows: pandas.DataFrame(rows, index=["x", "y"]),
    ],
    ids=["list", "DataFrame", "Dataset", "DataFrame of arrays", "DataFrame with an index"],
)
def test_rows_in_memory_equal_those_of_a_file(write: Write, make: Any, row: dict[str, Any]) -> None:
    rows = [row | {"family": "f"}, row]
    found = read_rows(Table("train", make(rows)))
    assert [one.source for one in found] == ["train[0]", "train[1]"]
    for here, there in zip(found, read_rows(write(*rows)), strict=True):
        assert (here.id, here.completions, here.family) == (there.id, there.completions, there.family)


@pytest.mark.parametrize("nothing", [float("nan"), None, pandas.NA, pandas.NaT, np.nan])
def test_nan_is_missing(nothing: Any) -> None:
    row = only(Table("train", pandas.DataFrame([SCORED | {"score_chosen": nothing, "family": nothing}])))
    assert (row.completions[0].numbers, row.family) == ({}, None)
    refused(
        Table("train", pandas.DataFrame([SCORED, SCORED | {"chosen": nothing}])),
        "train[1]: column 'chosen' must be given in every row, got none or null",
    )


def test_a_column_without_a_single_value_is_a_column() -> None:
    """Pairs whose chosen answers are all missing are no prompts."""
    for make in (list, pandas.DataFrame):
        refused(
            Table("train", make([SCORED | {"chosen": None}])), "train[0]: column 'chosen' must be given in every row"
        )


def test_labels_of_numpy() -> None:
    frame = pandas.DataFrame({"prompt": ["Q", "R"], "completion": ["A", "B"], "label": np.array([True, False])})
    assert [row.completions[0].label for row in read_rows(Table("train", frame))] == [1, -1]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([SCORED, SCORED | {"chosen": 7}], "train[1]: column 'chosen' must be a string or a list of messages, got 7"),
        ([SCORED, "Q"], "train[1]: must be a dict like {'prompt': ..., 'chosen': ...}, got 'Q'"),
        (pandas.DataFrame(columns=["prompt"]), "data.train must be at least one row, got an empty DataFrame of 0 rows"),
        (
            pandas.DataFrame([["Q", "A", "B"]], columns=["prompt", "chosen", "chosen"]),
            "data.train must be of columns with different names, got chosen twice",
        ),
        (
            pandas.DataFrame([{"prompt": "Q", "chosen": "[{'role': 'assistant', 'content': 'A'}]", "rejected": "B"}]),
            "train[0]: column 'chosen' must be a text or a list of messages, got a list that was written as a string",
        ),
        (
            pandas.DataFrame([{"question": "Who is it?", "better": "A", "worse": "B"}]),
            "{better: chosen, worse: rejected, ",
        ),
    ],
)
def test_faults_are_those_of_files(data: Any, expected: str) -> None:
    refused(Table("train", data), expected)


def test_sources_one_by_one(tmp_path: Path) -> None:
    frame, rows = pandas.DataFrame([SCORED]), [SCORED]
    assert sources_of("train", None) == sources_of("train", []) == []
    assert sources_of("train", tmp_path) == [str(tmp_path)]
    assert sources_of("train", ["a.jsonl", Path("b.csv")]) == ["a.jsonl", "b.csv"]
    assert [str(source) for source in sources_of("test", rows)] == ["test (list of 1 rows)"]
    several = sources_of("train", ["a.jsonl", frame, rows])
    assert [str(source) for source in several] == [
        "a.jsonl",
        "train[1] (DataFrame of 1 rows)",
        "train[2] (list of 1 rows)",
    ]
    assert isinstance(several[1], Table)
    assert several[1].records()[0].place == "train[1][0]"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (7, "data.train must be files, dataset folders, hub ids (owner/name), a list of dicts, .*, got 7"),
        ({"prompt": ["Q"]}, "data.train must be .* got {'prompt': "),
        (
            DatasetDict({"fit": Dataset.from_list([GOOD])}),
            r"got a? ?DatasetDict; name a split of it, such as data\['fit'\]",
        ),
        (Dataset.from_list([GOOD]).to_iterable_dataset(), "data.train must be .*, got "),
        (["a.jsonl", 7], "data.train must be .* got 7"),
        ([GOOD, "a.jsonl"], "data.train must be .* got {'prompt'"),
    ],
)
def test_what_is_no_data_is_refused(given: Any, expected: str) -> None:
    with pytest.raises(Refusal, match=expected.replace("(owner/name)", r"\(owner/name\)")):
        sources_of("train", given)


def test_the_fingerprint_is_of_the_content(write: Write) -> None:
    made = [list, pandas.DataFrame, Dataset.from_list]
    assert len({Table("train", make([GOOD])).fingerprint() for make in made}) == 1
    other = Table("train", [GOOD | {"prompt": [user("R")]}]).fingerprint()
    assert other != Table("train", [GOOD]).fingerprint()
    assert len(other) == 16
