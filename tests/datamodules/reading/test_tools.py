"""Tools and calls of rows: their forms, what is refused, and pictures."""

import json
from typing import Any

import pytest
from support.rows import answers, assistant, only, refused, user
from support.training import Write

from lightning_bnf.datamodules.reading.tools import check_calls, check_tools

ADD = {"name": "add", "parameters": {"type": "object", "properties": {}}}
WRAPPED = {"type": "function", "function": ADD}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 3}}}


@pytest.mark.parametrize("given", [[ADD], [WRAPPED], json.dumps([ADD]), ADD])
def test_tools_in_all_their_forms(given: Any) -> None:
    assert check_tools("tools", given) == [WRAPPED]


@pytest.mark.parametrize("given", [None, "", "[]", []])
def test_no_tools(given: Any) -> None:
    assert check_tools("tools", given) == []


@pytest.mark.parametrize(
    "given",
    [
        [CALL],
        [{"name": "add", "arguments": {"a": 3}}],
        [{"function": {"name": "add", "arguments": '{"a": 3}'}}],
        '{"name": "add", "arguments": {"a": 3}}',
    ],
)
def test_calls_in_all_their_forms(given: Any) -> None:
    assert check_calls("tool_calls", given) == [CALL]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"tools": [{"parameters": {}}]}, ["'tools[0]' must be a tool's JSON schema with a name"]),
        ({"tools": "add"}, ["'tools[0]' must be", "'add'"]),
        ({"images": ["cat.png"]}, ["'images' must be empty", "ignore_columns: [images]"]),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}, {"type": "image"}]}]},
            ["'messages[0]'", "got image (multimodal rows are not trained)"],
        ),
        ({"messages": [{**user("Q"), "tool_calls": [CALL]}]}, ["must be the assistant's", "'user'"]),
        ({"messages": [user("Q"), {**assistant(""), "tool_calls": [{"name": "add"}]}]}, ["must be a call such as"]),
        (
            {"messages": [user("Q"), {**assistant(""), "tool_calls": [CALL]}, user("R"), assistant("A")]},
            ["the roles must be", "results of tools"],
        ),
        ({"messages": [user("Q"), {**assistant("A"), "tools": [ADD]}]}, ["'messages[1]' must be without 'tools'"]),
        ({"messages": [{**user("Q"), "tools": [ADD]}, assistant("A")], "tools": [ADD]}, ["the only place of tools"]),
        ({"messages": None, "prompt": "Q", "completion": "A", "tools": [ADD]}, ["'tools' must stand beside lists"]),
    ],
)
def test_bad_rows(write: Write, row: dict[str, Any], expected: list[str]) -> None:
    found = {"messages": [user("Q"), assistant("A")], **row}
    refused(write({column: value for column, value in found.items() if value is not None}), *expected)


def test_what_is_refused_can_be_ignored(write: Write) -> None:
    row = {"messages": [user("Q"), assistant("A")], "images": ["cat.png"], "tools": [ADD]}
    found = only(write(row), ignore_columns=["images", "tools"])
    assert (found.prompt, answers(found)) == ((user("Q"),), [([assistant("A")], 1)])


def test_a_row_with_tools_is_another_row(write: Write) -> None:
    row = {"messages": [user("Q"), assistant("A")]}
    assert only(write(row)).id != only(write(row | {"tools": [ADD]})).id
