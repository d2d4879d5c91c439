"""Message lists: what a conversation may look like, and where its prompt ends."""

import re
from collections.abc import Collection, Sequence
from typing import Any, TypedDict

from lightning_bnf.datamodules.reading.errors import EMPTY, Fault, Unfit, shorten

_ROLES = ("system", "user", "assistant")
_UNTRAINED = ("tool_calls", "function_call", "tool_call_id", "reasoning_content", "reasoning", "thinking")
_WEIGHTS = ("weight", "train", "training")
"""Keys of messages that say what is to be trained, none of which is rendered: without them it would be another text."""
_ORDER = "an optional system message first, then user and assistant in turn, beginning with user"


class Message(TypedDict):
    """One turn: `role` is system, user or assistant, `content` its text."""

    role: str
    content: str


Messages = tuple[Message, ...]


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
    return tuple(_check_message(f"{column}[{index}]", message) for index, message in enumerate(value))


def _check_message(column: str, message: Any) -> Message:
    if not isinstance(message, dict) or "role" not in message or "content" not in message:
        raise Fault(
            f'column {column!r} must be {{"role": ..., "content": ...}}, got {shorten(message)}'
            + (
                " (ShareGPT's from/value: rename the keys, and the roles human -> user, gpt -> assistant)"
                if isinstance(message, dict) and "from" in message
                else ""
            )
        )
    role = message["role"]
    if role not in _ROLES:
        raise Fault(f"column {column!r}: the role must be one of {', '.join(_ROLES)}, got {shorten(role)}")
    if not isinstance(message["content"], str):
        raise Fault(f"column {column!r}: the content must be a string, got {shorten(message['content'])}")
    _check_keys(column, message)
    return Message(role=role, content=check_text(column, message["content"]))


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
    return {str(key) for message in value if isinstance(message, dict) for key in message} - {"role", "content"}


def without_keys(value: Any, names: Collection[str]) -> Any:
    """Messages, or lists of them, without some keys."""
    if isinstance(value, list):
        return [without_keys(held, names) for held in value]
    return {key: held for key, held in value.items() if key not in names} if isinstance(value, dict) else value


def check_prompt(column: str, messages: Messages) -> None:
    """A prompt: roles in order, and the user speaks last."""
    if not messages:
        raise Fault(f"column {column!r}: the prompt must be {_ORDER}, the last message from the user, got none")
    _check_order(column, messages)
    if messages[-1]["role"] != "user":
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
    roles = [message["role"] for message in messages]
    spoken = roles[1:] if roles[0] == "system" else roles
    expected = ["user", "assistant"] * len(spoken)
    if not spoken or spoken != expected[: len(spoken)]:
        raise Fault(f"column {column!r}: the roles must be {_ORDER}, got {', '.join(roles)}")


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
