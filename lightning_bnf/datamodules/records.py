"""From raw records to rows: which format a file has, and whether every row keeps to it.

Formats, told by the columns (TRL's names; a `column_map` renames others):

    paired          chosen, rejected, and prompt (or both share their first messages: the implicit prompt)
    unpaired        prompt, completion, label (true: preferred, false: dispreferred)
    demonstration   messages; or prompt and completion
    prompt          prompt alone: to generate from, never to train on

`prompt`, `chosen`, `rejected`, `completion` are message lists (rendered by the chat template) or plain strings.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_bnf.datamodules.errors import DataError, Fault, Faults, nearest, shorten
from lightning_bnf.datamodules.files import RawRecord, read_raw
from lightning_bnf.datamodules.messages import (
    Messages,
    check_completion,
    check_messages,
    check_prompt,
    check_text,
    shared_prefix,
    without_prefix,
)

FORMATS: dict[str, tuple[str, ...]] = {
    "paired": ("chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
    "demonstration": ("prompt", "completion"),
    "conversation": ("messages",),
    "prompt": ("prompt",),
}
"""Format -> the columns it needs, the most demanding first."""

OPTIONAL = ("prompt_id", "family", "verifier", "max_new_tokens", "kept_out")
KNOWN = tuple(dict.fromkeys([*(name for names in FORMATS.values() for name in names), *OPTIONAL]))

Text = Messages | str


@dataclass(frozen=True)
class Completion:
    """What is said to a prompt: messages that begin and end with the assistant's, or plain text. `label`: +1 or -1."""

    content: Text
    label: int


@dataclass(frozen=True)
class Row:
    """One data row, checked.

    id: 16 hex digits, a hash of prompt and completions, whatever file they are in
    source: `FILE:LINE`
    completions: paired: chosen, rejected; unpaired and demonstration: one; prompt: none
    verifier: name and arguments of a check that completions can be scored with
    """

    id: str
    source: str
    format: str
    prompt: Text
    completions: tuple[Completion, ...] = ()
    verifier: Mapping[str, Any] | None = None
    family: str | None = None
    prompt_id: str | None = None
    max_new_tokens: int | None = None
    kept_out: bool = False


@dataclass(frozen=True)
class Records:
    """The rows of one file or hub id, its format, and the columns that were not used."""

    path: str
    format: str
    rows: tuple[Row, ...]
    ignored: tuple[str, ...]


def read_records(
    path: str, split: str | None = None, revision: str | None = None, column_map: Mapping[str, str] | None = None
) -> Records:
    """Read and check all rows of a file, a dataset folder or a hub id.

    `column_map` maps our column names to the file's. Raises `DataError` with the first few faults and their count.
    """
    raw = _renamed(read_raw(path, split=split, revision=revision), column_map or {}, path)
    columns = list(dict.fromkeys(name for record in raw for name in record.values))
    format_ = _detect(path, columns)
    used = {*FORMATS[format_], *OPTIONAL, "prompt"}
    rows, faults = [], Faults()
    for record in raw:
        try:
            rows.append(_row(record, format_))
        except Fault as fault:
            faults.add(record.place, fault)
    faults.raise_if_any()
    name = "demonstration" if format_ == "conversation" else format_
    return Records(path, name, tuple(rows), tuple(column for column in columns if column not in used))


def _renamed(raw: Sequence[RawRecord], column_map: Mapping[str, str], path: str) -> list[RawRecord]:
    """The records with the file's column names replaced by ours."""
    if not column_map:
        return list(raw)
    there = {name for record in raw for name in record.values}
    for ours, theirs in column_map.items():
        if ours not in KNOWN:
            near = nearest(ours, KNOWN)
            raise DataError(
                f"column_map {ours!r}: there is no such column here; accepted: {', '.join(KNOWN)}"
                + (f" (did you mean {near!r}?)" if near else "")
            )
        if theirs not in there:
            raise DataError(f"column_map {ours}={theirs!r}: {path} has the columns {', '.join(sorted(there))}")
    ours_by_theirs = {theirs: ours for ours, theirs in column_map.items()}
    return [
        RawRecord(
            record.place,
            {
                ours_by_theirs.get(name, name): value
                for name, value in record.values.items()
                if name in ours_by_theirs or name not in column_map
            },
        )
        for record in raw
    ]


def _detect(path: str, columns: Sequence[str]) -> str:
    for column in columns:
        near = nearest(column, KNOWN, cutoff=0.8)
        if column not in KNOWN and near is not None and near not in columns:
            raise DataError(f"{path}: unknown column {column!r}; did you mean {near!r}? (or name it in column_map)")
    found = next((name for name, needed in FORMATS.items() if set(needed) <= set(columns)), None)
    if found is None:
        accepted = "; ".join(" + ".join(needed) for needed in FORMATS.values())
        raise DataError(f"{path}: the columns {', '.join(columns)} fit no format; accepted: {accepted}")
    return found


def _row(record: RawRecord, format_: str) -> Row:
    values = record.values
    for column in FORMATS[format_]:
        if values.get(column) is None:
            raise Fault(f"column {column!r} is missing or null; accepted: a value in every row of a {format_} file")
    prompt, completions = _conversation(values, format_)
    content = json.dumps([prompt, [(c.content, c.label) for c in completions]], sort_keys=True)
    return Row(
        id=hashlib.sha256(content.encode()).hexdigest()[:16],
        source=record.place,
        format="demonstration" if format_ == "conversation" else format_,
        prompt=prompt,
        completions=completions,
        verifier=_verifier(values.get("verifier")),
        family=_optional(values, "family", str, "a string"),
        prompt_id=_optional(values, "prompt_id", str, "a string"),
        max_new_tokens=_optional(values, "max_new_tokens", int, "a whole number"),
        kept_out=bool(_optional(values, "kept_out", bool, "true or false")),
    )


def _conversation(values: Mapping[str, Any], format_: str) -> tuple[Text, tuple[Completion, ...]]:
    if format_ == "conversation":
        return _split_messages(check_messages("messages", values["messages"]))
    if format_ == "paired":
        return _pair(values)
    prompt = _text("prompt", values["prompt"])
    if not isinstance(prompt, str):
        check_prompt("prompt", prompt)
    if format_ == "prompt":
        return prompt, ()
    label = values.get("label", True)
    if not isinstance(label, bool):
        raise Fault(
            f"column 'label': the value is {shorten(label)}; accepted: true (preferred) or false (dispreferred), so "
            "write 1 and 0, or texts, as true and false"
        )
    return prompt, (Completion(_completion("completion", values, prompt), 1 if label else -1),)


def _pair(values: Mapping[str, Any]) -> tuple[Text, tuple[Completion, ...]]:
    prompt = _implicit_prompt(values) if values.get("prompt") is None else _text("prompt", values["prompt"])
    if isinstance(prompt, str) and isinstance(values["chosen"], list):
        prompt = _prompt_of_repeating(prompt, values["chosen"])
    if not isinstance(prompt, str):
        check_prompt("prompt", prompt)
    labelled = (("chosen", 1), ("rejected", -1))
    sides = tuple(Completion(_completion(side, values, prompt), label) for side, label in labelled)
    if sides[0].content == sides[1].content:
        raise Fault(
            f"columns 'chosen' and 'rejected' are equal: {shorten(values['chosen'])}; accepted: two different answers"
        )
    return prompt, sides


def _implicit_prompt(values: Mapping[str, Any]) -> Messages:
    """The messages that both answers start with, up to the last one of the user's."""
    chosen, rejected = (check_messages(side, values[side]) for side in ("chosen", "rejected"))
    prompt = shared_prefix(chosen, rejected)
    while prompt and prompt[-1]["role"] != "user":
        prompt = prompt[:-1]
    return prompt


def _prompt_of_repeating(prompt: str, chosen: list[Any]) -> Messages:
    """The prompt of answers that are message lists though it is text itself: the messages before the answer, or it."""
    messages = check_messages("chosen", chosen)
    if messages[0]["role"] == "assistant":
        return ({"role": "user", "content": prompt},)
    return messages[:-1]


def _split_messages(messages: Messages) -> tuple[Messages, tuple[Completion, ...]]:
    if messages[-1]["role"] != "assistant":
        raise Fault(
            f"column 'messages': the last message has the role {messages[-1]['role']!r}; accepted: a conversation that "
            "ends with the assistant's message, which is what is trained"
        )
    prompt, answer = messages[:-1], messages[-1:]
    check_prompt("messages", prompt)
    check_completion("messages", prompt, answer)
    return prompt, (Completion(answer, 1),)


def _completion(column: str, values: Mapping[str, Any], prompt: Text) -> Text:
    completion = _text(column, values[column])
    if isinstance(prompt, str) != isinstance(completion, str):
        raise Fault(
            f"column {column!r}: the prompt is {'a string' if isinstance(prompt, str) else 'a message list'} and this "
            "is not; accepted: both strings, or both message lists"
        )
    if isinstance(completion, str) or isinstance(prompt, str):
        return completion
    completion = without_prefix(completion, prompt)
    check_completion(column, prompt, completion)
    return completion


def _text(column: str, value: object) -> Text:
    return check_messages(column, value) if isinstance(value, list) else check_text(column, value)


def _verifier(value: object) -> Mapping[str, Any] | None:
    if isinstance(value, str):  # Parquet has no column of differing objects
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise Fault(f"column 'verifier': the value is {shorten(value)}; accepted: an object with a name") from None
    if value is not None and (not isinstance(value, dict) or not isinstance(value.get("name"), str)):
        raise Fault(f"column 'verifier': the value is {shorten(value)}; accepted: an object with a name")
    return value


def _optional(values: Mapping[str, Any], column: str, kind: type, accepted: str) -> Any:
    value = values.get(column)
    if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise Fault(f"column {column!r}: the value is {shorten(value)}; accepted: {accepted}")
    return value
