"""Every format that is read, and every bad input: the message names file, line, value and what is accepted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.datamodules.reading.records import DataError, Row, read_file, read_rows

Write = Callable[..., str]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


GOOD = {"prompt": [user("What is 3 + 4?")], "chosen": [assistant("7")], "rejected": [assistant("8")]}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows as JSON lines and returns the path."""

    def write(*rows: Any, name: str = "train.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def only(path: str, **options: Any) -> Row:
    (row,) = read_rows(path, **options)
    return row


def answers(row: Row) -> list[tuple[Any, int]]:
    return [(completion.text or list(completion.messages or ()), completion.label) for completion in row.completions]


def refused(path: str, *expected: str, **options: Any) -> str:
    """The message of the refusal, in which all of `expected` must stand."""
    with pytest.raises(DataError) as caught:
        read_rows(path, **options)
    message = str(caught.value)
    for part in expected:
        assert part in message, message
    return message


# Formats


def test_pairs_of_messages(write: Write) -> None:
    row = only(write(GOOD))
    assert row.format == "paired"
    assert row.prompt == (user("What is 3 + 4?"),)
    assert answers(row) == [([assistant("7")], 1), ([assistant("8")], -1)]


def test_pairs_of_strings(write: Write) -> None:
    row = only(write({"prompt": "3 + 4 =", "chosen": " 7", "rejected": " 8"}))
    assert (row.format, row.prompt) == ("paired", "3 + 4 =")
    assert answers(row) == [(" 7", 1), (" 8", -1)]


def test_the_implicit_prompt_is_what_chosen_and_rejected_share(write: Write) -> None:
    shared = [system("Be brief."), user("Hi"), assistant("Hello"), user("3 + 4?")]
    row = only(write({"chosen": [*shared, assistant("7")], "rejected": [*shared, assistant("8")]}))
    assert row.prompt == tuple(shared)
    assert answers(row) == [([assistant("7")], 1), ([assistant("8")], -1)]


def test_message_lists_may_repeat_the_prompt_column(write: Write) -> None:
    repeated = {"prompt": [user("Q")], "chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]}
    assert answers(only(write(repeated))) == [([assistant("A")], 1), ([assistant("B")], -1)]


def test_ultrafeedback_shape_has_a_string_prompt_that_the_lists_repeat(write: Write) -> None:
    stored = {
        "prompt_id": "x1",
        "prompt": "Q",
        "all_generated_responses": ["A", "B"],
        "all_rm_scores": [0.2, 0.1],
        "chosen": [user("Q"), assistant("A")],
        "rejected": [user("Q"), assistant("B")],
    }
    found = read_file(write(stored))
    (row,) = found.rows
    assert (row.prompt, row.prompt_id) == ((user("Q"),), "x1")
    assert answers(row) == [([assistant("A")], 1), ([assistant("B")], -1)]
    assert found.ignored == ()
    assert [completion.numbers for completion in row.completions] == [{"reward": 0.2}, {"reward": 0.1}]


def test_a_string_prompt_before_message_lists_is_the_users_turn(write: Write) -> None:
    row = only(write({"prompt": "Q", "chosen": [assistant("A")], "rejected": [assistant("B")]}))
    assert row.prompt == (user("Q"),)


def test_a_string_answer_after_a_message_prompt_is_the_assistants_turn(write: Write) -> None:
    row = only(write({"prompt": [user("Q")], "chosen": "A", "rejected": "B"}))
    assert answers(row) == [([assistant("A")], 1), ([assistant("B")], -1)]


@pytest.mark.parametrize(("label", "expected"), [(True, 1), (False, -1)])
def test_unpaired_rows(write: Write, label: bool, expected: int) -> None:
    row = only(write({"prompt": [user("Q")], "completion": [assistant("A")], "label": label}))
    assert (row.format, answers(row)) == ("unpaired", [([assistant("A")], expected)])
    row = only(write({"prompt": "Q", "completion": "A", "label": label}))
    assert (row.prompt, answers(row)) == ("Q", [("A", expected)])


def test_messages_with_a_label_are_unpaired_never_demonstrations(write: Write) -> None:
    row = only(write({"messages": [user("Q"), assistant("A")], "label": False}))
    assert (row.format, answers(row)) == ("unpaired", [([assistant("A")], -1)])


def test_demonstrations(write: Write) -> None:
    row = only(write({"messages": [user("Q"), assistant("A"), user("R"), assistant("B")]}))
    assert (row.format, row.prompt) == ("demonstration", (user("Q"), assistant("A"), user("R")))
    assert answers(row) == [([assistant("B")], 1)]
    assert answers(only(write({"prompt": "Q", "completion": "A"}))) == [("A", 1)]


def test_prompts_alone(write: Write) -> None:
    row = only(write({"prompt": [user("Q")], "kept_out": True, "max_new_tokens": 12, "family": "sums"}))
    assert (row.format, row.completions, row.kept_out) == ("prompt", (), True)
    assert (row.max_new_tokens, row.family) == (12, "sums")


def test_optional_columns(write: Write) -> None:
    check = {"name": "number", "answer": 7, "unit": None}
    row = only(write(GOOD | {"verifier": check, "score_chosen": 1, "score_rejected": -0.5, "prompt_id": 3}))
    assert row.verifier == check  # as given, nulls and all
    assert [completion.numbers["reward"] for completion in row.completions] == [1.0, -0.5]
    assert row.prompt_id == "3"
    assert only(write(GOOD | {"verifier": json.dumps(check)})).verifier == check
    scored = {"prompt": "Q", "completion": "A", "label": True, "score": 0.25}
    assert only(write(scored)).completions[0].numbers == {"reward": 0.25}


def test_null_is_absent(write: Write) -> None:
    assert only(write(GOOD | {"family": None, "kept_out": None, "verifier": None})).kept_out is False


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


def test_ids_are_the_content_whatever_the_file_and_order(write: Write) -> None:
    other = GOOD | {"rejected": [assistant("9")]}
    first, second = read_rows(write(GOOD, other))
    third, fourth = read_rows(write(other, GOOD | {"family": "sums"}, name="other.jsonl"))
    assert (first.id, second.id) == (fourth.id, third.id)
    assert len({first.id, second.id}) == 2
    assert len(first.id) == 16
    assert int(first.id, 16) >= 0


def test_the_label_is_part_of_the_id(write: Write) -> None:
    answer = {"prompt": "Q", "completion": "A"}
    good, bad = read_rows(write(answer | {"label": True}, answer | {"label": False}))
    assert good.id != bad.id


def test_duplicates_are_kept_and_counted(write: Write) -> None:
    found = read_file(write(GOOD, GOOD, GOOD))
    assert (len(found.rows), found.duplicates) == (3, 2)


# Containers


def test_sources_count_blank_lines_and_survive_byte_order_marks(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n  \n" + json.dumps(GOOD).encode())
    assert [row.source for row in read_rows(str(path))] == [f"{path}:1", f"{path}:4"]


def test_parquet_equals_jsonl(write: Write, tmp_path: Path) -> None:
    rows = [GOOD | {"verifier": json.dumps({"name": "number"}), "kept_out": False}, GOOD | {"prompt": [user("R")]}]
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    here, there = read_rows(write(*rows)), read_rows(str(path))
    assert [(row.id, row.verifier) for row in here] == [(row.id, row.verifier) for row in there]
    assert [row.source for row in there] == [f"{path}:1", f"{path}:2"]


def test_parquet_objects_have_the_keys_they_were_written_with(tmp_path: Path) -> None:
    """In a table, every verifier has all verifiers' arguments, null where it has none."""
    verifiers = [{"name": "number", "answer": 7}, {"name": "keywords", "words": ["a"]}]
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([GOOD | {"verifier": v} for v in verifiers]), path)
    assert [row.verifier for row in read_rows(str(path))] == verifiers


def test_a_dataset_folder_is_read_as_hub_data_is(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    write(GOOD, GOOD, name="data/train.jsonl")
    write(GOOD, name="data/test.jsonl")
    rows = read_rows(str(folder), split="train")
    assert [row.source for row in rows] == [f"{folder}[train]:1", f"{folder}[train]:2"]
    assert answers(rows[0]) == [([assistant("7")], 1), ([assistant("8")], -1)]
    refused(str(folder), "train, test", "split")
    refused(str(folder), "trian", "accepted", split="trian")


def test_hub_ids_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    refused("nobody/has-this", "nobody/has-this", "as a hub id", "accepted: a .jsonl file")


def test_a_misspelled_ending_is_no_hub_id(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    write(GOOD, name="train.jsonl")
    refused("train.jsnl", "no such file or folder", "did you mean 'train.jsonl'?")


# Bad input: files


def test_missing_file_names_the_nearest(write: Write, tmp_path: Path) -> None:
    write(GOOD, name="train_pairs.jsonl")
    refused(
        str(tmp_path / "trian_pairs.jsonl"), "trian_pairs.jsonl", "no such file", "did you mean", "train_pairs.jsonl"
    )
    refused(str(tmp_path / "nowhere" / "x.jsonl"), "no such file", "no folder")
    refused("./nothing-here", "./nothing-here", "no such file")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    for content in ("", "\n \n"):
        path.write_text(content)
        refused(str(path), "train.jsonl", "empty", "at least one row")
    table = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pydict({"prompt": pyarrow.array([], pyarrow.string())}), table)
    refused(str(table), "train.parquet", "empty", "at least one row")


def test_other_kinds_of_files(tmp_path: Path) -> None:
    for name, content, expected in (
        ("train.csv", b"prompt\n", "'.csv'"),
        ("train.pkl", b"\x80\x04.", "'.pkl'"),
        ("train.parquet", b"PAR0", "not a readable Parquet file"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(str(tmp_path / name), name, expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "Q"', "broken JSON"),
        ("{'prompt': 'Q'}", "broken JSON"),
        ('{"prompt": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "broken JSON"),
        ('["Q"]', "the line holds a list"),
        ('"Q"', "the line holds a string"),
        ("7", "the line holds a number"),
        ("null", "the line holds null"),
    ],
)
def test_lines_that_are_no_objects(tmp_path: Path, line: str, expected: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    refused(str(path), "train.jsonl:2:", expected, "accepted: one JSON object on each line")


def test_not_utf8_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"prompt": "Q"}\n{"prompt": "caf\xe9"}\n')
    # 16 bytes before the line; the byte stands behind {"prompt": "caf, which are 15.
    refused(str(path), "train.jsonl:2:", "b'\\xe9'", "byte offset 31", "byte 15 of the line", "UTF-8")


# Bad input: columns


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


def test_split_of_a_single_file(write: Write) -> None:
    refused(write(GOOD), "train.jsonl", "split 'train'", "no splits", split="train")


# Bad input: rows

PLAIN = {"prompt": "Q", "chosen": "A", "rejected": "B"}
ANSWER = {"prompt": "Q", "completion": "A", "label": True}


@pytest.mark.parametrize(
    ("good", "change", "expected"),
    [
        (PLAIN, {"chosen": None}, ["'chosen'", "missing or null"]),
        (PLAIN, {"chosen": 7}, ["'chosen'", "7", "a string or a list of messages"]),
        (PLAIN, {"chosen": {"role": "assistant"}}, ["'chosen'", "a string or a list of messages"]),
        (PLAIN, {"prompt": ""}, ["'prompt'", "empty", "''", "not blank"]),
        (PLAIN, {"prompt": []}, ["'prompt'", "empty", "at least one message"]),
        (PLAIN, {"chosen": " \n"}, ["'chosen'", "empty", "' \\n'", "not blank"]),
        (PLAIN, {"rejected": "A"}, ["'chosen' and 'rejected' are equal", "'A'", "two answers"]),
        (PLAIN, {"chosen": "\ud800"}, ["'chosen'", "surrogate", "UTF-8"]),
        (PLAIN, {"rejected": [assistant("B")]}, ["one is a string, the other a list", "the same for both"]),
        (PLAIN, {"prompt": None}, ["'prompt'", "missing", "with a prompt column"]),
        (ANSWER, {"label": 1}, ["'label'", "the value is 1", "true (preferred) or false", "label == 1"]),
        (ANSWER, {"label": "true"}, ["'label'", "'true'", "true (preferred) or false", "without quotes"]),
        (ANSWER, {"label": None}, ["'label'", "missing or null"]),
        (ANSWER, {"completion": ""}, ["'completion'", "empty"]),
        (ANSWER, {"completion": [assistant("")]}, ["'completion[0]'", "empty"]),
        (ANSWER, {"score": "high"}, ["'score'", "'high'", "a finite number"]),
        (ANSWER, {"score": True}, ["'score'", "True", "a finite number"]),
        (ANSWER, {"family": 3}, ["'family'", "3", "a string"]),
        (ANSWER, {"max_new_tokens": 0}, ["'max_new_tokens'", "0", "1 or more"]),
        (ANSWER, {"max_new_tokens": 1.5}, ["'max_new_tokens'", "1.5", "whole number"]),
        (ANSWER, {"kept_out": "no"}, ["'kept_out'", "'no'", "true or false"]),
        (ANSWER, {"verifier": {"answer": 7}}, ["'verifier'", "{'answer': 7}", "name"]),
        (ANSWER, {"verifier": "number"}, ["'verifier'", "'number'", "name"]),
        (GOOD, {"prompt": [user("Q"), assistant("A")]}, ["'prompt'", "'assistant'", "last message is from the user"]),
        (GOOD, {"prompt": [assistant("Q")]}, ["'prompt'", "assistant", "beginning with user"]),
        (GOOD, {"prompt": [user("Q"), system("S"), user("R")]}, ["user, system, user", "an optional system message"]),
        (GOOD, {"prompt": [user("Q"), user("R")]}, ["'prompt'", "user, user", "in turn"]),
        (GOOD, {"prompt": [system("S")]}, ["'prompt'", "system", "beginning with user"]),
        (GOOD, {"prompt": [{"role": "human", "content": "Q"}]}, ["'prompt[0]'", "'human'", "system, user, assistant"]),
        (GOOD, {"prompt": [{"from": "human", "value": "Q"}]}, ["'prompt[0]'", "role", "from/value"]),
        (GOOD, {"prompt": [{"role": "user", "content": 7}]}, ["'prompt[0]'", "7", "a string"]),
        (GOOD, {"prompt": ["Q"]}, ["'prompt[0]'", "'Q'", "role"]),
        (GOOD, {"chosen": [user("A")]}, ["'chosen'", "'user'", "messages that end with the assistant's"]),
        (
            GOOD,
            {"chosen": [assistant("A"), user("B")]},
            ["'chosen'", "'user'", "messages that end with the assistant's"],
        ),
        (GOOD, {"chosen": [user("A"), assistant("B")]}, ["'chosen'", "user, assistant", "begins and ends with"]),
        (GOOD, {"chosen": [assistant("A"), assistant("B")]}, ["'chosen'", "assistant, assistant", "in turn"]),
        (GOOD, {"chosen": []}, ["'chosen'", "empty", "at least one message"]),
        (GOOD, {"chosen": [assistant("8")]}, ["'chosen' and 'rejected' are equal", "two answers"]),
        (GOOD, {"prompt": "X", "chosen": [user("Q"), assistant("A")]}, ["'prompt'", "'X'", "the same prompt"]),
    ],
)
def test_bad_rows(write: Write, good: dict[str, Any], change: dict[str, Any], expected: list[str]) -> None:
    refused(write(good, good | change), "train.jsonl:2:", "accepted", *expected)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ("Q", ["'messages'", "'Q'", "a list of messages"]),
        ([user("Q")], ["'messages'", "'user'", "end with the assistant's"]),
        ([assistant("A")], ["'messages'", "the prompt is empty", "the last message from the user"]),
        ([user("Q"), assistant("A"), user("R")], ["'messages'", "'user'", "end with the assistant's"]),
        ([assistant("Q"), user("A"), assistant("R")], ["'messages'", "assistant, user", "beginning with user"]),
    ],
)
def test_bad_demonstrations(write: Write, messages: list[Message], expected: list[str]) -> None:
    good = {"messages": [user("Q"), assistant("A")]}
    refused(write(good, {"messages": messages}), "train.jsonl:2:", *expected)


def test_implicit_prompts_that_share_nothing(write: Write) -> None:
    row = {"chosen": [user("Q"), assistant("A")], "rejected": [user("R"), assistant("B")]}
    refused(write(row), "train.jsonl:1:", "'chosen'", "the prompt is empty")


def test_faults_are_collected_over_the_whole_file(write: Write) -> None:
    message = refused(write(GOOD, *[GOOD | {"chosen": []}] * 8), "8 faulty rows in all")
    assert [f"train.jsonl:{number}:" in message for number in range(1, 9)] == [False, *[True] * 5, False, False]


def test_rows_of_parquet_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ANSWER | {"label": 1}] * 2), path)
    refused(str(path), "train.parquet:1:", "train.parquet:2:", "'label'", "true (preferred)")
