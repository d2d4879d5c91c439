"""Message lists: which conversations are taken, and where their prompt ends."""

import pytest
from support.rows import answers, assistant, only, refused, system, user
from support.training import Write

from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.datamodules.reading.records import read_file


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


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ("Q", ["'messages'", "'Q'", "a list of messages"]),
        ([user("Q")], ["'messages'", "'user'", "last message must be the assistant's"]),
        ([assistant("A")], ["'messages'", "the last message from the user, got none"]),
        ([user("Q"), assistant("A"), user("R")], ["'messages'", "'user'", "last message must be the assistant's"]),
        ([assistant("Q"), user("A"), assistant("R")], ["'messages'", "assistant, user", "beginning with user"]),
    ],
)
def test_bad_demonstrations(write: Write, messages: list[Message], expected: list[str]) -> None:
    good = {"messages": [user("Q"), assistant("A")]}
    refused(write(good, {"messages": messages}), "train.jsonl:2:", *expected)


def test_implicit_prompts_that_share_nothing(write: Write) -> None:
    row = {"chosen": [user("Q"), assistant("A")], "rejected": [user("R"), assistant("B")]}
    refused(write(row), "train.jsonl:1:", "'chosen': the prompt must be ", ", got none")


@pytest.mark.parametrize(
    ("key", "value"),
    [("function_call", {"name": "add"}), ("reasoning_content", "3 and 4"), ("weight", 0), ("train", False)],
)
def test_keys_that_say_what_is_trained_are_refused_until_they_are_named(write: Write, key: str, value: object) -> None:
    spoken = {**assistant("7"), key: value, "mood": "calm"}
    path = write({"messages": [user("3 + 4?"), spoken]})
    refused(path, "column 'messages[1]'", repr(key), repr(value), f"data.options.ignore_columns: [{key}]")
    found = read_file(path, ignore_columns=[key])
    assert answers(found.rows[0]) == [([assistant("7")], 1)]
    assert found.ignored == ("messages[].mood",), "other keys are reported"


def test_keys_that_change_nothing_are_left_out(write: Write) -> None:
    spoken = {**assistant("7"), "tool_calls": [], "reasoning_content": None, "weight": 1}
    assert answers(only(write({"messages": [user("3 + 4?"), spoken]}))) == [([assistant("7")], 1)]
