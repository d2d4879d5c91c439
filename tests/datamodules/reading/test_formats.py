"""A file's format, told from its columns."""

import pytest
from support.rows import GOOD, answers, assistant, only, refused, user
from support.training import Write

from lightning_bnf.datamodules.reading.records import read_file


def test_more_demanding_formats_come_first_and_the_other_columns_are_ignored(write: Write) -> None:
    found = read_file(write(GOOD | {"messages": [user("Q"), assistant("A")], "source": "web"}))
    assert (found.format, found.ignored) == ("paired", ("messages", "source"))


def test_a_format_can_be_asked_for(write: Write) -> None:
    path = write(GOOD)
    assert only(path, format="prompt").completions == ()
    refused(path, "train.jsonl", "format 'unpaired'", "prompt, completion and label", format="unpaired")


def test_column_map(write: Write) -> None:
    row = only(
        write({"question": "Q", "better": "A", "worse": "B", "prompt": "not this"}),
        column_map={"prompt": "question", "chosen": "better", "rejected": "worse"},
    )
    assert (row.prompt, answers(row)) == ("Q", [("A", 1), ("B", -1)])


@pytest.mark.parametrize(
    ("columns", "wrong", "right"),
    [
        (("prompt", "choosen", "rejected"), "'choosen'", "'chosen'"),
        (("promt", "chosen", "rejected"), "'promt'", "'prompt'"),
        (("prompt", "completion", "labels"), "'labels'", "'label'"),
        (("prompt", "Chosen", "rejected"), "'Chosen'", "'chosen'"),
        (("prompt", "completion", "label", "verifer"), "'verifer'", "'verifier'"),
    ],
)
def test_misspelled_columns(write: Write, columns: tuple[str, ...], wrong: str, right: str) -> None:
    refused(write(dict.fromkeys(columns, "x")), "train.jsonl", f"unknown column {wrong}", f"did you mean {right}")


def test_a_resembling_column_can_be_ignored_by_name(write: Write) -> None:
    path = write(GOOD | {"scores": [1, 2]})
    refused(path, "'scores'", "ignore_columns")
    assert only(path, ignore_columns=["scores"]).format == "paired"


def test_columns_that_match_no_format(write: Write) -> None:
    refused(
        write({"question": "Q", "answer": "A"}), "train.jsonl", "question", "answer", "no format", "chosen and rejected"
    )


def test_column_map_errors(write: Write) -> None:
    path = write({"prompt": "Q", "better": "A", "rejected": "B"})
    refused(path, "'choosen'", "did you mean 'chosen'", column_map={"choosen": "better"})
    refused(path, "'beter'", "did you mean 'better'", column_map={"chosen": "beter"})
