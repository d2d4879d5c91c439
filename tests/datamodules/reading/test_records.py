"""Every format that is read, and every bad input: the message names file, line, value and what is accepted."""

from typing import Any

import pytest
from support.rows import ANSWER, GOOD, answers, assistant, only, refused, system, user
from support.training import Write

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
    assert len(found.rows) == 3
    assert [place.rpartition(":")[2] for place in found.repeated] == ["2", "3"]


def test_an_answer_with_both_labels_is_kept_and_counted_once(write: Write) -> None:
    """Of five answers one has both labels (rows 1, 2 and 4), and one twice the same (5 and 6)."""
    said = [(1, True), (1, False), (2, True), (1, True), (3, False), (3, False), (4, True), (5, False)]
    found = read_file(write(*[ANSWER | {"completion": f"A{number}", "label": label} for number, label in said]))
    assert len(found.rows) == len(said)
    assert [place.rpartition(":")[2] for place in found.contradicted] == ["2"]
    assert [place.rpartition(":")[2] for place in found.repeated] == ["4", "6"]
    pair = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    assert read_file(write(pair, pair | {"chosen": "B", "rejected": "A"}, pair)).contradicted == ()


def test_keys_of_tools_are_used_and_those_of_messages_beside_them_are_named(write: Write) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
    found = read_file(write(GOOD | {"tools": tools, "chosen": [{**assistant("7"), "id": 3}]}))
    assert found.ignored == ("chosen[].id",)


# Bad input: labels


@pytest.mark.parametrize("words", [(1, 0, -1), ("+1", "0.0", "-1"), (-1.0, True, 0)])
def test_zero_beside_minus_one_may_be_no_vote_and_is_refused(write: Write, words: tuple[Any, ...]) -> None:
    path = write(*[ANSWER | {"prompt": f"Q{i}", "label": word} for i, word in enumerate(words)])
    zero, minus = (f"{path}:{1 + [str(float(word)) for word in words].index(of)}" for of in ("0.0", "-1.0"))
    refused(path, f"{path}: column 'label'", f"0 (first at {zero})", f"-1 (first at {minus})", "drop these rows")


@pytest.mark.parametrize("words", [(1, 0, "false"), ("good", "-1", "down"), ("up", "true", 1, "0", False)])
def test_words_that_mean_the_same_may_be_mixed(write: Write, words: tuple[Any, ...]) -> None:
    assert len(read_rows(write(*[ANSWER | {"label": word} for word in words]))) == len(words)


# Bad input: rows

PLAIN = {"prompt": "Q", "chosen": "A", "rejected": "B"}


@pytest.mark.parametrize(
    ("good", "change", "expected"),
    [
        (PLAIN, {"chosen": None}, ["'chosen' must be given", "got none or null"]),
        (PLAIN, {"chosen": 7}, ["'chosen'", "7", "a string or a list of messages"]),
        (PLAIN, {"chosen": {"role": "assistant"}}, ["'chosen'", "a string or a list of messages"]),
        (PLAIN, {"prompt": ""}, ["'prompt'", "not blank, got ''"]),
        (PLAIN, {"prompt": []}, ["'prompt' must be at least one message, got an empty list"]),
        (PLAIN, {"chosen": " \n"}, ["'chosen'", "not blank, got ' \\n'"]),
        (PLAIN, {"rejected": "A"}, ["'chosen' and 'rejected' must be two answers, got 'A' twice"]),
        (PLAIN, {"chosen": "\ud800"}, ["'chosen'", "surrogate", "UTF-8"]),
        (PLAIN, {"rejected": [assistant("B")]}, ["must be of one kind, got a string and a list"]),
        (PLAIN, {"prompt": None}, ["'prompt' must be given with chosen and rejected as strings, got none"]),
        (ANSWER, {"label": 2}, ["'label'", "true (preferred) or false", "desirable or undesirable", "got 2"]),
        (ANSWER, {"label": "5 stars"}, ["'label'", "up or down", "'5 stars'"]),
        (ANSWER, {"label": [True]}, ["'label'", "[True]"]),
        (ANSWER, {"family": "\ud800"}, ["'family'", "UTF-8"]),
        (ANSWER, {"verifier": {"name": "\ud800"}}, ["'verifier'", "name"]),
        (ANSWER, {"max_new_tokens": 10**400}, ["'max_new_tokens'", "1 to 2147483647"]),
        (ANSWER, {"label": None}, ["'label' must be given", "got none or null"]),
        (ANSWER, {"completion": ""}, ["'completion'", "not blank, got ''"]),
        (ANSWER, {"completion": [assistant("")]}, ["'completion[0]'", "not blank, got ''"]),
        (ANSWER, {"score": "high"}, ["'score'", "'high'", "a finite number"]),
        (ANSWER, {"score": True}, ["'score'", "True", "a finite number"]),
        (ANSWER, {"family": 3}, ["'family'", "3", "a string"]),
        (ANSWER, {"max_new_tokens": 0}, ["'max_new_tokens'", "got 0", "1 to 2147483647"]),
        (ANSWER, {"max_new_tokens": 1.5}, ["'max_new_tokens'", "1.5", "whole number"]),
        (ANSWER, {"kept_out": "no"}, ["'kept_out'", "'no'", "true or false"]),
        (ANSWER, {"verifier": {"answer": 7}}, ["'verifier'", "{'answer': 7}", "name"]),
        (ANSWER, {"verifier": "number"}, ["'verifier'", "'number'", "name"]),
        (
            GOOD,
            {"prompt": [user("Q"), assistant("A")]},
            ["'prompt'", "must be from the user, got 'assistant'"],
        ),
        (GOOD, {"prompt": [assistant("Q")]}, ["'prompt'", "assistant", "beginning with user"]),
        (GOOD, {"prompt": [user("Q"), system("S"), user("R")]}, ["user, system, user", "an optional system message"]),
        (GOOD, {"prompt": [user("Q"), user("R")]}, ["'prompt'", "user, user", "in turn"]),
        (GOOD, {"prompt": [system("S")]}, ["'prompt'", "system", "beginning with user"]),
        (GOOD, {"prompt": [{"role": "human", "content": "Q"}]}, ["'prompt[0]'", "'human'", "system, user, assistant"]),
        (GOOD, {"prompt": [{"from": "narrator", "value": "Q"}]}, ["'prompt[0]'", "'from'", "'narrator'"]),
        (GOOD, {"prompt": [{"role": "user", "content": 7}]}, ["'prompt[0]'", "7", "a string"]),
        (GOOD, {"prompt": ["Q"]}, ["'prompt[0]'", "'Q'", "role"]),
        (GOOD, {"chosen": [user("A")]}, ["'chosen'", "'user'", "last message must be the assistant's"]),
        (
            GOOD,
            {"chosen": [assistant("A"), user("B")]},
            ["'chosen'", "'user'", "last message must be the assistant's"],
        ),
        (
            GOOD,
            {"chosen": [user("A"), assistant("B")]},
            ["'chosen'", "user, assistant", "begin and end with"],
        ),
        (GOOD, {"chosen": [assistant("A"), assistant("B")]}, ["'chosen'", "assistant, assistant", "in turn"]),
        (GOOD, {"chosen": []}, ["'chosen' must be at least one message, got an empty list"]),
        (GOOD, {"chosen": [assistant("8")]}, ["'chosen' and 'rejected' must be two answers"]),
        (GOOD, {"chosen": [assistant(" 8\n")]}, ["'chosen' and 'rejected' must be two answers"]),
        (GOOD, {"all_generated_responses": [{"a": 1}], "all_rm_scores": [[1], [2]]}, ["'all_rm_scores'", "[1]"]),
        (
            GOOD,
            {"prompt": "X", "chosen": [user("Q"), assistant("A")]},
            ["must be one of the user messages", "got 'X'"],
        ),
    ],
)
def test_bad_rows(write: Write, good: dict[str, Any], change: dict[str, Any], expected: list[str]) -> None:
    refused(write(good, good | change), "train.jsonl:2: column", " must be ", ", got ", *expected)
