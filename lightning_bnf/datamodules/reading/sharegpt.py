"""ShareGPT's turns of `from` and `value` as messages of roles."""

from collections.abc import Mapping
from typing import Any

from lightning_bnf.datamodules.reading.errors import Fault, shorten

_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model"), "assistant"),
    "system": "system",
    **dict.fromkeys(("tool", "observation"), "tool"),
}


def is_turn(value: object) -> bool:
    """Whether it is a turn of `from` and `value`."""
    return isinstance(value, Mapping) and {"from", "value"} <= set(value) and not {"role", "content"} & set(value)


def as_role_message(column: str, turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn as a message; what a `function_call` holds becomes the assistant's `tool_calls`. Raises `Fault`."""
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    if turn["from"] == "function_call":
        return {**rest, "role": "assistant", "content": "", "tool_calls": turn["value"]}
    role = _ROLES.get(turn["from"]) if isinstance(turn["from"], str) else None
    if role is None:
        raise Fault(
            f"column {column!r}: 'from' must be one of {', '.join([*_ROLES, 'function_call'])}, got"
            f" {shorten(turn['from'])}"
        )
    return {**rest, "role": role, "content": turn["value"]}
