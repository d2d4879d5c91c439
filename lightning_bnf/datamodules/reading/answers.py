"""Prompts and answers as the columns of a row give them: plain text or messages, checked against each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lightning_bnf.datamodules.reading.errors import Fault, shorten
from lightning_bnf.datamodules.reading.messages import (
    Message,
    Messages,
    check_completion,
    check_messages,
    check_prompt,
    check_text,
    said,
    without_prefix,
)

Text = Messages | str  # a conversation, or plain text as it stands in the file


@dataclass(frozen=True)
class Completion:
    """One answer: `text` or `messages` (the other is None), `label` +1 or -1, and what the file says of it in numbers
    (`columns.NUMBERS`)."""

    text: str | None
    messages: Messages | None
    label: int
    numbers: Mapping[str, float] = field(default_factory=dict)


def conversation_prompt(given: Text | None, answer: Messages, implicit: Messages) -> Messages:
    """The prompt's messages. `given` is the prompt column, `implicit` what `answer` holds of a prompt itself."""
    if given is None:
        return implicit
    if not isinstance(given, str):
        return given
    if answer[0]["role"] == "assistant":
        return (Message(role="user", content=given),)
    # The shape of UltraFeedback's sets: the prompt is a string, and the message lists repeat it.
    if all(message["content"].strip() != given.strip() for message in implicit if message["role"] == "user"):
        raise Fault(
            f"column 'prompt' must be one of the user messages that the answers share, got {shorten(given)};"
            " or let the answers begin with the assistant"
        )
    return implicit


def as_completion(
    column: str, prompt: Text, answer: Text, label: int, numbers: Mapping[str, float], prompt_column: str
) -> Completion:
    """The answer of a column as a completion of `prompt`, which it may repeat. Raises `Fault`."""
    if isinstance(prompt, str):
        if not isinstance(answer, str):
            raise Fault(f"column {column!r} must be a string like the prompt, got a list of messages")
        return Completion(answer, None, label, numbers)
    check_prompt(prompt_column, prompt)
    messages = (
        (Message(role="assistant", content=answer),) if isinstance(answer, str) else without_prefix(answer, prompt)
    )
    check_completion(column, prompt, messages)
    return Completion(None, messages, label, numbers)


def as_text(column: str, value: object) -> Text:
    """A column's value as plain text or messages. Raises `Fault`."""
    return check_text(column, value) if not isinstance(value, list) else check_messages(column, value)


def as_answer(column: str, value: object) -> Text:
    """The same, if the assistant speaks last. Raises `Fault`."""
    answer = as_text(column, value)
    if not isinstance(answer, str) and answer[-1]["role"] != "assistant":
        raise Fault(
            f"column {column!r}: the last message must be the assistant's, which is what is trained,"
            f" got the role {answer[-1]['role']!r}"
        )
    return answer


def bare(answer: Text) -> str | list[tuple[str, str]]:
    """An answer without the spaces around it, in which two answers may differ and mean the same."""
    if isinstance(answer, str) or len(answer) == 1:
        return spoken(answer).strip()
    return [(message["role"], said(message).strip()) for message in answer]


def spoken(answer: Text) -> str:
    """The text of an answer: of messages the last one's."""
    return answer if isinstance(answer, str) else said(answer[-1])
