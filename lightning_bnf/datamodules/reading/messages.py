"""Message lists: what a conversation may look like, and where its prompt ends."""

from collections.abc import Sequence
from typing import Any, TypedDict

from lightning_bnf.datamodules.reading.errors import Fault, shorten

_ROLES = ("system", "user", "assistant")
_ORDER = "an optional system message first, then user and assistant in turn, beginning with user"


class Message(TypedDict):
    """One turn: `role` is system, user or assistant, `content` its text."""

    role: str
    content: str


Messages = tuple[Message, ...]


def check_text(column: str, value: object) -> str:
    """`value`, if it is a string with something in it that can be encoded."""
    if not isinstance(value, str):
        raise Fault(f"column {column!r}: the value is {shorten(value)}; accepted: a string or a list of messages")
    if not value.strip():
        raise Fault(f"column {column!r}: the text is empty ({shorten(value)}); accepted: a text that is not blank")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        bad = value[error.start : error.end]
        raise Fault(
            f"column {column!r}: the text holds half a surrogate pair ({shorten(bad)} at character {error.start});"
            " accepted: text that can be written as UTF-8"
        ) from None
    return value


def check_messages(column: str, value: object) -> Messages:
    """`value` as messages, if it is a list of them; their order is not checked yet."""
    if not isinstance(value, list):
        raise Fault(f"column {column!r}: the value is {shorten(value)}; accepted: a string or a list of messages")
    if not value:
        raise Fault(f"column {column!r}: the list of messages is empty; accepted: at least one message")
    return tuple(_check_message(f"{column}[{index}]", message) for index, message in enumerate(value))


def _check_message(column: str, message: Any) -> Message:
    if not isinstance(message, dict) or "role" not in message or "content" not in message:
        raise Fault(
            f'column {column!r}: the value is {shorten(message)}; accepted: {{"role": ..., "content": ...}}'
            + (
                " (for from/value messages, rename the keys first)"
                if isinstance(message, dict) and "from" in message
                else ""
            )
        )
    role = message["role"]
    if role not in _ROLES:
        raise Fault(f"column {column!r}: the role is {shorten(role)}; accepted: {', '.join(_ROLES)}")
    if not isinstance(message["content"], str):
        raise Fault(f"column {column!r}: the content is {shorten(message['content'])}; accepted: a string")
    return Message(role=role, content=check_text(column, message["content"]))


def check_prompt(column: str, messages: Messages) -> None:
    """A prompt: roles in order, and the user speaks last."""
    if not messages:
        raise Fault(f"column {column!r}: the prompt is empty; accepted: {_ORDER}, the last message from the user")
    _check_order(column, messages)
    if messages[-1]["role"] != "user":
        raise Fault(
            f"column {column!r}: the prompt's last message has the role {messages[-1]['role']!r};"
            " accepted: a prompt whose last message is from the user"
        )


def check_completion(column: str, prompt: Messages, completion: Messages) -> None:
    """A completion of `prompt`: roles in order, the assistant speaks first and last."""
    roles = [message["role"] for message in completion]
    if not roles:
        raise Fault(f"column {column!r}: the completion is empty; accepted: at least one assistant message")
    if roles[0] != "assistant" or roles[-1] != "assistant":
        raise Fault(
            f"column {column!r}: after the prompt the roles are {', '.join(roles)};"
            " accepted: a completion that begins and ends with an assistant message"
        )
    _check_order(column, prompt + completion)


def _check_order(column: str, messages: Messages) -> None:
    roles = [message["role"] for message in messages]
    spoken = roles[1:] if roles[0] == "system" else roles
    expected = ["user", "assistant"] * len(spoken)
    if not spoken or spoken != expected[: len(spoken)]:
        raise Fault(f"column {column!r}: the roles are {', '.join(roles)}; accepted: {_ORDER}")


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
