"""What a chat template does with tools, calls and results: found out by rendering a conversation with each."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from lightning_bnf.datamodules.reading.errors import Fault
from lightning_bnf.datamodules.reading.messages import Message

TOOL, CALLED, VALUE, RESULT = "xtoolx", "xcalledx", "xvaluex", "xresultx"  # found again in the rendered text
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "description": "A word."}}, "required": ["a"]}
_FUNCTION = {"name": TOOL, "description": "Does something.", "parameters": _SCHEMA}
_CALL: dict[str, Any] = {
    "type": "function",
    "id": "call12345",
    "function": {"name": CALLED, "arguments": {"a": VALUE}},
}
CALLING: tuple[Message, ...] = (
    Message(role="user", content="Use it."),
    Message(role="assistant", content="", tool_calls=[_CALL]),
    Message(role="tool", content=RESULT, name=CALLED, tool_call_id="call12345"),
    Message(role="assistant", content="Done."),
)
"""A conversation with a call and its result."""


class ToolSupport:
    """What of `tools`, `calls` and `results` a template writes, and how it takes arguments."""

    def __init__(self, render: Callable[[Sequence[Message]], str]):
        self.as_text = False  # arguments: as a JSON string, not as an object
        first: Message = {**CALLING[0], "tools": [{"type": "function", "function": _FUNCTION}]}
        tools = _tried(render, [first])
        calls = _tried(render, CALLING)
        if not _has(calls, CALLED, VALUE):
            self.as_text = True
            calls = _tried(render, [self.written(message) for message in CALLING])
        self.missing = {
            "tools": not _has(tools, TOOL),
            "calls": not _has(calls, CALLED, VALUE),
            "results": not _has(calls, RESULT),
        }

    def written(self, message: Message) -> Message:
        """The message with the arguments of its calls as the template takes them."""
        if not self.as_text or "tool_calls" not in message:
            return message
        calls = [
            {**call, "function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
            for call in message["tool_calls"]
        ]
        return {**message, "tool_calls": calls}

    def check(self, messages: Sequence[Message]) -> None:
        """Raises `Fault` for a conversation with what the template does not write."""
        has = {
            "tools": bool(messages and messages[0].get("tools")),
            "calls": any(message.get("tool_calls") for message in messages),
            "results": any(message["role"] == "tool" for message in messages),
        }
        lost = [kind for kind, given in has.items() if given and self.missing[kind]]
        if lost:
            only = "; without them: data.options.ignore_columns: [tools]" if lost == ["tools"] else ""
            raise Fault(
                "the model's chat template must be one that writes tools, calls and results, got one that leaves out"
                f" {' and '.join(lost)}{only}"
            )


def _tried(render: Callable[[Sequence[Message]], str], messages: Sequence[Message]) -> str:
    try:
        return render(messages)
    except Fault:
        return ""


def _has(text: str, *words: str) -> bool:
    return all(word in text for word in words)
