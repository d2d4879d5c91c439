"""Faults: each row's place, the first few listed, all counted."""

import pickle
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from support.rows import ANSWER, GOOD, only, refused
from support.training import Write

from lightning_bnf.datamodules.reading.errors import DataError, Faults, UnknownWord


def test_faults_are_collected_over_the_whole_file(write: Write) -> None:
    message = refused(write(GOOD, *[GOOD | {"chosen": []}] * 8), "8 faulty rows in all")
    assert [f"train.jsonl:{number}:" in message for number in range(1, 9)] == [False, *[True] * 5, False, False]


def test_rows_of_parquet_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([GOOD | {"chosen": []}] * 2), path)
    refused(str(path), "train.parquet:1:", "train.parquet:2:", "'chosen'")


def test_unknown_words_are_named_once_each_with_what_to_do(write: Write) -> None:
    words = ["maybe", "meh", *["maybe"] * 40, 5]
    message = refused(write(*[ANSWER | {"label": word} for word in words], ANSWER | {"completion": 7}))
    first, second, third = message.splitlines()
    assert "train.jsonl:1: column 'label' must be true (preferred) or" in first
    assert "(rewrite a column of other words to one of these), got 'maybe', 'meh' (at " in first
    assert first.endswith("train.jsonl:2), 5 (at " + first.partition(":")[0] + ":43)")
    assert "train.jsonl:44: column 'completion'" in second
    assert third == "(44 faulty rows in all, each unknown word is named once)"
    many = refused(write(*[ANSWER | {"label": f"w{i}"} for i in range(1000)]))
    assert "'w19' (at " in many
    assert "and 980 more words\n(1000 faulty rows in all" in many


def test_unknown_words_of_parts_of_a_file_add_up() -> None:
    whole, parts = Faults(), [Faults(), Faults()]
    for line, word in enumerate(["a", "b", "b", "a", "c"]):
        for faults in (whole, parts[line // 3]):
            faults.add(f"x:{line}", pickle.loads(pickle.dumps(UnknownWord("must be one", word))))  # noqa: S301
    parts[0].extend(parts[1])
    assert vars(parts[0]) == vars(whole)
    with pytest.raises(DataError, match=r"^x:0: must be one, got a, b \(at x:1\), c \(at x:4\)\n\(5 faulty rows"):
        parts[0].raise_if_any()


@pytest.mark.parametrize(("word", "label"), [("yes", 1), ("No", -1)])
def test_yes_and_no_are_labels(write: Write, word: str, label: int) -> None:
    assert only(write(ANSWER | {"label": word})).completions[0].label == label
