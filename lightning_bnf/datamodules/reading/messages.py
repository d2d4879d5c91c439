"""Message lists: what a conversation may look like, and where its prompt ends."""

import json
import re
from collections.abc import Collection, Sequence
from typing import Any, NotRequired, TypedDict

from lightning_bnf.datamodules.reading.errors import EMPTY, Fault, Unfit, shorten
from lightning_bnf.datamodules.reading.sharegpt import as_role_message, is_turn
from lightning_bnf.datamodules.reading.tools import check_calls, check_tools

_ROLES = ("system", "user", "assistant", "tool")
_UNTRAINED = ("function_call", "reasoning_content", "reasoning", "thinking")
_WEIGHTS = ("weight", "train", "training")
"""Keys of messages that say what is to be trained, none of which is rendered: without them it would be another text."""
_ORDER = (
    "an optional system message first, then user and assistant in turn, beginning with user; behind an assistant's"
    " calls the results of tools, and the assistant again"
)


class Message(TypedDict):
    """One turn: `role` is system, user, assistant or tool, `content` its text.

    tool_calls: what the assistant calls, as `tools.check_calls` gives it; the content may be empty then. tool_call_id,
    name: of a tool's result. tools: what the conversation may call, on its first message, so that they are wherever its
    prompt is.
    """

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    tools: NotRequired[list[dict[str, Any]]]


Messages = tuple[Message, ...]

_READ = {"role", "content", "from", "value", "tool_calls", "tools"}


_WRITTEN_LIST = re.compile(r"""\s*\[\s*\{\s*['"](role|content|from|value)['"]\s*:.*\]\s*""", re.DOTALL)


def looks_like_messages(text: str) -> bool:
    """Whether a string is a list of messages as JSON or Python writes it: what a table of strings makes of one."""
    return _WRITTEN_LIST.fullmatch(text) is not None


def encodable(text: str) -> bool:
    """Whether it can be written as UTF-8: half a surrogate pair, which JSON can hold, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_text(column: str, value: object) -> str:
    """`value`, if it is a string with something in it that can be encoded."""
    if not isinstance(value, str):
        raise Fault(f"column {column!r} must be a string or a list of messages, got {shorten(value)}")
    if looks_like_messages(value):
        raise Fault(
            f"column {column!r} must be a text or a list of messages, got a list that was written as a string:"
            f" {shorten(value)}; read it with json.loads, or write the file from the lists themselves"
        )
    if not value.strip():
        raise Unfit(EMPTY, f"column {column!r} must be a text that is not blank, got {shorten(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        bad = value[error.start : error.end]
        raise Fault(
            f"column {column!r} must be text that can be written as UTF-8, got half a surrogate pair"
            f" ({shorten(bad)} at character {error.start})"
        ) from None
    return value


def check_messages(column: str, value: object) -> Messages:
    """`value` as messages, if it is a list of them; their order is not checked yet."""
    if not isinstance(value, list):
        raise Fault(f"column {column!r} must be a string or a list of messages, got {shorten(value)}")
    if not value:
        raise Fault(f"column {column!r} must be at least one message, got an empty list")
    messages = tuple(_check_message(f"{column}[{index}]", message) for index, message in enumerate(value))
    for index, message in enumerate(messages[1:], 1):
        if "tools" in message:
            raise Fault(f"column '{column}[{index}]' must be without 'tools' (the first message has them), got some")
    return messages


def _check_message(column: str, message: Any) -> Message:
    if is_turn(message):
        message = as_role_message(column, message)
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    if not isinstance(message, dict) or "role" not in message or not ("content" in message or calls):
        raise Fault(f'column {column!r} must be {{"role": ..., "content": ...}}, got {shorten(message)}')
    role, content = message["role"], message.get("content")
    if role not in _ROLES:
        raise Fault(f"column {column!r}: the role must be one of {', '.join(_ROLES)}, got {shorten(role)}")
    if calls and role != "assistant":
        raise Fault(f"column {column!r} must be the assistant's, which has 'tool_calls', got the role {role!r}")
    content = "" if content is None and calls else content
    if not isinstance(content, str):
        raise Fault(f"column {column!r}: the content must be a string, got {_kind_of(content)}")
    _check_keys(column, message)
    empty = not content.strip() and (calls or role == "tool")
    found = Message(role=role, content="" if empty else check_text(column, content))
    if calls:
        found["tool_calls"] = check_calls(f"{column}.tool_calls", calls)
    if message.get("tools"):
        found["tools"] = check_tools(f"{column}.tools", message["tools"])
    if role == "tool" and isinstance(message.get("tool_call_id"), str):
        found["tool_call_id"] = message["tool_call_id"]
    if role == "tool" and isinstance(message.get("name"), str):
        found["name"] = message["name"]
    return found


def _kind_of(content: Any) -> str:
    """A content that is no string, with the kinds of its parts where it is multimodal."""
    parts = content if isinstance(content, list) else [content]
    kinds = {str(part.get("type", "")) for part in parts if isinstance(part, dict)} - {"", "text"}
    return f"{', '.join(sorted(kinds))} (multimodal rows are not trained)" if kinds else shorten(content)


def _check_keys(column: str, message: dict[str, Any]) -> None:
    """What is beside role and content is not rendered, and reported; but not where it changes what is to be trained."""
    for key in message.keys() & {*_UNTRAINED, *_WEIGHTS}:
        value = message[key]
        if value in (None, "", [], {}) or (key in _WEIGHTS and value == 1):
            continue
        raise Fault(
            f"column {column!r} must be a message of role and content alone, got {key!r} beside them, which is not"
            f" trained ({shorten(value)}); to leave it out: data.options.ignore_columns: [{key}]"
        )


def other_keys(value: Any) -> set[str]:
    """What messages hold beside role and content."""
    if not isinstance(value, list):
        return set()
    return {
        str(key)
        for message in value
        if isinstance(message, dict)
        for key in set(message) - _READ - ({"tool_call_id", "name"} if message.get("role") == "tool" else set())
    }


def without_keys(value: Any, names: Collection[str]) -> Any:
    """Messages, or lists of them, without some keys."""
    if isinstance(value, list):
        return [without_keys(held, names) for held in value]
    return {key: held for key, held in value.items() if key not in names} if isinstance(value, dict) else value


def check_prompt(column: str, messages: Messages) -> None:
    """A prompt: roles in order, and the user speaks last, or a tool."""
    if not messages:
        raise Fault(f"column {column!r}: the prompt must be {_ORDER}, the last message from the user, got none")
    _check_order(column, messages)
    if messages[-1]["role"] not in ("user", "tool"):
        raise Fault(f"column {column!r}: the prompt's last message must be from the user, got {messages[-1]['role']!r}")


def check_completion(column: str, prompt: Messages, completion: Messages) -> None:
    """A completion of `prompt`: roles in order, the assistant speaks first and last."""
    roles = [message["role"] for message in completion]
    if not roles:
        raise Fault(f"column {column!r}: the completion must be at least one assistant message, got none")
    if roles[0] != "assistant" or roles[-1] != "assistant":
        raise Fault(
            f"column {column!r}: the completion must be messages that begin and end with the assistant's,"
            f" got the roles {', '.join(roles)}"
        )
    _check_order(column, prompt + completion)


def _check_order(column: str, messages: Messages) -> None:
    spoken = messages[1:] if messages[0]["role"] == "system" else messages
    follows: tuple[str, ...] = ("user",)
    for message in spoken:
        if message["role"] not in follows:
            break
        answers = ("tool",) if message.get("tool_calls") else ("user", "tool")  # a call may be written in the text
        follows = {"user": ("assistant",), "assistant": answers}.get(message["role"], ("tool", "assistant"))
    else:
        if spoken:
            return
    roles = ", ".join(message["role"] for message in messages)
    raise Fault(f"column {column!r}: the roles must be {_ORDER}, got {roles}")


def said(message: Message) -> str:
    """A message's text, its calls behind it."""
    calls = message.get("tool_calls")
    return message["content"] + (json.dumps(calls, ensure_ascii=False) if calls else "")


def last_turn(messages: Sequence[Message]) -> int:
    """Where the last turn of the assistant begins: behind the last message of the user."""
    return max((i + 1 for i, message in enumerate(messages) if message["role"] == "user"), default=0)


def with_tools(column: str, prompt: Messages | str, tools: list[dict[str, Any]]) -> Messages:
    """The prompt's messages with what it may call. Raises `Fault` for plain text, and for tools that it has already."""
    if isinstance(prompt, str):
        raise Fault(f"column {column!r} must stand beside lists of messages, got it beside plain strings")
    if "tools" in prompt[0]:
        raise Fault(f"column {column!r} must be the only place of tools, got them on the first message too")
    return ({**prompt[0], "tools": tools}, *prompt[1:])


def without_prefix(messages: Messages, prefix: Messages) -> Messages:
    """`messages` without `prefix`, if they repeat it; else `messages`."""
    return messages[len(prefix) :] if messages[: len(prefix)] == prefix else messages


def shared_prefix(first: Sequence[Message], second: Sequence[Message]) -> Messages:
    """The messages that two conversations have in common from their start."""
    count = 0
    for one, other in zip(first, second):
        if one != other:
            break
        count += 1
    return tuple(first[:count])
