"""Tools that a conversation may call, and the calls in it, in the form that chat templates take."""

import json
from collections.abc import Mapping
from typing import Any

from lightning_bnf.datamodules.reading.errors import Fault, shorten

MEDIA = ("image", "images", "video", "videos", "audio", "audios")
"""Columns of multimodal sets; also what the parts of their messages are called."""


def check_tools(column: str, value: object) -> list[dict[str, Any]]:
    """A list of tools, or a JSON string of one, each as `{"type": "function", "function": {"name": ...}}`; a schema
    alone (`{"name": ..., "parameters": ...}`) is wrapped so. Empty where there are none. Raises `Fault`."""
    found = _parsed(value)
    if found in (None, "", [], {}):
        return []
    tools = found if isinstance(found, list) else [found]
    return [_tool(f"{column}[{index}]", tool) for index, tool in enumerate(tools)]


def _tool(column: str, tool: object) -> dict[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not _is_name(function.get("name")):
        raise Fault(
            f"column {column!r} must be a tool's JSON schema with a name, got {shorten(tool)}"
            " (a list of them, or a JSON string of that)"
        )
    _check_writable(column, tool)
    assert isinstance(tool, Mapping)
    return dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)}


def check_calls(column: str, value: object) -> list[dict[str, Any]]:
    """The calls of a message, or a JSON string of them: each with a name, and as arguments an object or a JSON string
    of one, which becomes the object. Raises `Fault`."""
    found = _parsed(value)
    calls = found if isinstance(found, list) else [found]
    return [_call(f"{column}[{index}]", call) for index, call in enumerate(calls)]


def _call(column: str, call: object) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    arguments = _parsed(function.get("arguments")) if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not _is_name(function.get("name")) or not isinstance(arguments, dict):
        raise Fault(
            f'column {column!r} must be a call such as {{"name": "add", "arguments": {{"a": 1}}}}, got {shorten(call)}'
        )
    _check_writable(column, arguments)
    assert isinstance(call, Mapping)
    identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {"type": "function", **identity, "function": {"name": function["name"], "arguments": arguments}}


def refuse_media(values: Mapping[str, Any]) -> None:
    """Raises `Fault` for a row with pictures, sound or films in columns of their own."""
    for column in MEDIA:
        if values.get(column) not in (None, "", [], {}):
            raise Fault(
                f"column {column!r} must be empty, since multimodal rows are not trained, got"
                f" {shorten(values[column])}; to train on the texts alone: data.options.ignore_columns: [{column}]"
            )


def _parsed(value: object) -> Any:
    """A string as the JSON that it holds; as it is, where it holds none."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _check_writable(column: str, value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError):
        raise Fault(f"column {column!r} must be what JSON in UTF-8 can hold, got {shorten(value)}") from None
