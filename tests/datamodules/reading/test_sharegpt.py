"""ShareGPT's rows: what their turns become, and what is refused."""

from typing import Any

import pytest
from support.rows import answers, assistant, only, refused, system, user
from support.training import Write

HUMAN, GPT = {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}


@pytest.mark.parametrize(
    ("row", "format", "expected"),
    [
        ({"conversations": [HUMAN, GPT], "system": "Be brief."}, "sharegpt", [([assistant("A")], 1)]),
        ({"conversations": [HUMAN, GPT], "label": False}, "sharegpt_unpaired", [([assistant("A")], -1)]),
        (
            {"conversations": [HUMAN], "chosen": GPT, "rejected": [{"from": "gpt", "value": "B"}]},
            "sharegpt_paired",
            [([assistant("A")], 1), ([assistant("B")], -1)],
        ),
        ({"messages": [HUMAN, GPT]}, "demonstration", [([assistant("A")], 1)]),
    ],
)
def test_turns_become_messages(write: Write, row: dict[str, Any], format: str, expected: Any) -> None:
    found = only(write(row))
    assert found.format == format
    assert found.prompt == ((system("Be brief."),) if "system" in row else ()) + (user("Q"),)
    assert answers(found) == expected


def test_calls_and_observations_are_tool_turns(write: Write) -> None:
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 3}}'}
    row = {"conversations": [HUMAN, call, {"from": "observation", "value": "7"}, GPT], "tools": '[{"name": "add"}]'}
    found = only(write(row))
    function = {"name": "add", "arguments": {"a": 3}}
    called = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    tools = [{"type": "function", "function": {"name": "add"}}]
    assert found.prompt == ({**user("Q"), "tools": tools},)
    assert answers(found) == [([called, {"role": "tool", "content": "7"}, assistant("A")], 1)]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([{"from": "narrator", "value": "Q"}, GPT], ["conversations[0]", "'from' must be one of human", "'narrator'"]),
        ([HUMAN, GPT, GPT], ["the roles must be", "got user, assistant, assistant"]),
        ([HUMAN, {"from": "function_call", "value": "add 3"}], ["must be a call such as", "'add 3'"]),
        ([HUMAN], ["must be the assistant's", "'user'"]),
    ],
)
def test_bad_turns(write: Write, turns: Any, expected: list[str]) -> None:
    refused(write({"conversations": turns}), "train.jsonl:1:", *expected)


def test_conversations_beside_our_own_columns_are_not_read(write: Write) -> None:
    row = {"prompt": [user("Q")], "completion": [assistant("A")], "conversations": [HUMAN]}
    assert only(write(row)).format == "demonstration"
