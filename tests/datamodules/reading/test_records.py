"""Every format that is read, and every bad input: the message names file, line, value and what is accepted."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from support.rows import GOOD, answers, assistant, only, refused, system, user
from support.training import Write

from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.datamodules.reading.records import read_file, read_rows

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
