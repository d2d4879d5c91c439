"""Preference data as rows: every format is read into `Row`, and every row is checked before anything is trained."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_bnf.datamodules.reading.columns import numbers_of, scores_of_samples, token_count, typed
from lightning_bnf.datamodules.reading.errors import DataError, Fault, Faults, shorten
from lightning_bnf.datamodules.reading.files import RawRecord, read_raw
from lightning_bnf.datamodules.reading.formats import Format, detect_format, map_columns
from lightning_bnf.datamodules.reading.messages import (
    Message,
    Messages,
    check_completion,
    check_messages,
    check_prompt,
    check_text,
    shared_prefix,
    without_prefix,
)

__all__ = ["Completion", "DataError", "Message", "RecordFile", "Row", "read_file", "read_rows"]

Text = Messages | str  # a conversation, or plain text as it stands in the file


@dataclass(frozen=True)
class Completion:
    """One answer: `text` or `messages` (the other is None), `label` +1 or -1, and what the file says of it in numbers
    (`columns.NUMBERS`)."""

    text: str | None
    messages: Messages | None
    label: int
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One row of a file.

    id: 16 hex digits, the hash of the prompt and of the completions with their labels; the same in every file.
    source: where the row stands, e.g. `train.jsonl:17`.
    format: paired | grouped | unpaired | demonstration | prompt.
    prompt: messages, or plain text as the file has it.
    completions: (chosen +1, rejected -1) | (samples +1, ..., rejected -1) | one | one, +1 | none, in the order of the
        formats above.
    verifier: `{"name": ..., arguments}` as given. family: the task family, for grouped metrics.
    prompt_id, max_new_tokens (for generation), kept_out (of training): as given.
    """

    id: str
    source: str
    format: str
    prompt: Text
    completions: tuple[Completion, ...]
    verifier: dict[str, Any] | None = None
    family: str | None = None
    prompt_id: str | None = None
    max_new_tokens: int | None = None
    kept_out: bool = False


@dataclass(frozen=True)
class RecordFile:
    """What one file holds: its rows, the format found, the columns that nothing reads, rows that occur before."""

    path: str
    rows: tuple[Row, ...]
    format: str
    conversational: bool
    ignored: tuple[str, ...]
    duplicates: int


def read_rows(
    path: str,
    split: str | None = None,
    column_map: Mapping[str, str] | None = None,
    format: str = "auto",
    ignore_columns: Sequence[str] = (),
) -> list[Row]:
    """The rows of a JSONL or Parquet file, a dataset folder or a hub id. Raises `DataError`."""
    return list(read_file(path, split, column_map, format, ignore_columns).rows)


def read_file(
    path: str,
    split: str | None = None,
    column_map: Mapping[str, str] | None = None,
    format: str = "auto",
    ignore_columns: Sequence[str] = (),
    subset: str | None = None,
    revision: str | None = None,
) -> RecordFile:
    """Read and check one file; see `options.DataOptions` for the arguments."""
    records = read_raw(path, split, subset, revision)
    columns = list(dict.fromkeys(column for record in records for column in record.values))
    ours = map_columns(path, columns, column_map or {})
    found = detect_format(path, set(ours.values()), format, ignore_columns)
    reads = found.reads(set(ours.values()))
    rows, faults = [], Faults()
    for record in records:
        values = {ours[column]: value for column, value in record.values.items() if value is not None}
        try:
            rows.append(_row(RawRecord(record.place, values), found, reads))
        except Fault as fault:
            faults.add(record.place, fault)
    faults.raise_if_any()
    return RecordFile(
        path=path,
        rows=tuple(rows),
        format=found.name,
        conversational=any(not isinstance(row.prompt, str) for row in rows),
        ignored=tuple(column for column in columns if ours[column] not in reads),
        duplicates=sum(count - 1 for count in Counter(row.id for row in rows).values()),
    )


def _row(record: RawRecord, found: Format, reads: frozenset[str]) -> Row:
    values = record.values
    needed = found.matches(reads) or frozenset()
    for column in sorted(needed):
        if column not in values:
            raise Fault(f"column {column!r} is missing or null; accepted: a value in every row of this file")
    prompt, completions = _READERS[found.name]({column: values[column] for column in reads if column in values})
    family, prompt_id = values.get("family"), values.get("prompt_id")
    return Row(
        id=_content_hash(prompt, completions),
        source=record.place,
        format=found.name,
        prompt=prompt,
        completions=completions,
        verifier=_verifier(values.get("verifier")),
        family=None if family is None else typed("family", family, (str,), "a string"),
        prompt_id=None if prompt_id is None else str(typed("prompt_id", prompt_id, (str, int), "a string or a number")),
        max_new_tokens=token_count("max_new_tokens", values.get("max_new_tokens")),
        kept_out=typed("kept_out", values.get("kept_out", False), (bool,), "true or false"),
    )


def _paired(values: dict[str, Any]) -> tuple[Text, tuple[Completion, ...]]:
    chosen, rejected = (_answer(column, values[column]) for column in ("chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise Fault("columns 'chosen' and 'rejected': one is a string, the other a list; accepted: the same for both")
    if chosen == rejected:
        raise Fault(f"columns 'chosen' and 'rejected' are equal: {shorten(values['chosen'])}; accepted: two answers")
    given = _text("prompt", values["prompt"]) if "prompt" in values else None
    if isinstance(chosen, str) or isinstance(rejected, str):
        if given is None:
            raise Fault(
                "column 'prompt' is missing; accepted: chosen and rejected as strings with a prompt column"
                " (only message lists can hold the prompt themselves: where two strings part is no turn's end)"
            )
        prompt: Text = given
    else:
        prompt = _conversation_prompt(given, chosen, shared_prefix(chosen, rejected))
    scored = scores_of_samples(values, _spoken(chosen), _spoken(rejected))
    numbers = [found | numbers_of(values, suffix) for found, suffix in zip(scored, ("_chosen", "_rejected"))]
    return prompt, (
        _completion("chosen", prompt, chosen, +1, numbers[0], "chosen" if given is None else "prompt"),
        _completion("rejected", prompt, rejected, -1, numbers[1], "rejected" if given is None else "prompt"),
    )


def _grouped(values: dict[str, Any]) -> tuple[Text, tuple[Completion, ...]]:
    prompt = _text("prompt", values["prompt"])
    samples = typed("samples", values["samples"], (list,), "a list of answers, each a string or messages")
    if not samples:
        raise Fault("column 'samples': the list is empty; accepted: one answer or more")
    answers = [("samples", sample, +1) for sample in samples] + [("rejected", values["rejected"], -1)]
    return prompt, tuple(
        _completion(column, prompt, _answer(column, answer), label, {}, "prompt") for column, answer, label in answers
    )


def _spoken(answer: Text) -> str:
    """The text of an answer: of messages the last one's."""
    return answer if isinstance(answer, str) else answer[-1]["content"]


def _unpaired(values: dict[str, Any]) -> tuple[Text, tuple[Completion, ...]]:
    label = values["label"]
    if not isinstance(label, bool):
        raise Fault(
            f"column 'label': the value is {shorten(label)}; accepted: true (preferred) or false (dispreferred)"
            " without quotes; convert with Python's `label == 1` or `label == 'true'`, whichever fits"
        )
    prompt, (completion,) = _demonstration(values)
    return prompt, (Completion(completion.text, completion.messages, +1 if label else -1, completion.numbers),)


def _demonstration(values: dict[str, Any]) -> tuple[Text, tuple[Completion, ...]]:
    column = "completion" if "completion" in values else "messages"
    if column == "messages":
        check_messages(column, values[column])  # here a string is no answer
    answer = _answer(column, values[column])
    prompt = _text("prompt", values["prompt"]) if "prompt" in values and column == "completion" else None
    if isinstance(answer, tuple):
        prompt = _conversation_prompt(prompt, answer, answer[:-1])
    assert prompt is not None  # a format without `messages` has a prompt column
    prompt_column = "messages" if column == "messages" else "prompt"
    return prompt, (_completion(column, prompt, answer, +1, numbers_of(values), prompt_column),)


def _prompt_only(values: dict[str, Any]) -> tuple[Text, tuple[Completion, ...]]:
    prompt = _text("prompt", values["prompt"])
    if not isinstance(prompt, str):
        check_prompt("prompt", prompt)
    return prompt, ()


def _conversation_prompt(given: Text | None, answer: Messages, implicit: Messages) -> Messages:
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
            f"column 'prompt': {shorten(given)} is none of the user messages that the answers share;"
            " accepted: the same prompt in both, or answers that begin with the assistant"
        )
    return implicit


def _completion(
    column: str, prompt: Text, answer: Text, label: int, numbers: Mapping[str, float], prompt_column: str
) -> Completion:
    if isinstance(prompt, str):
        if not isinstance(answer, str):
            raise Fault(
                f"column {column!r}: a list of messages after a prompt that is a string; accepted: two of a kind"
            )
        return Completion(answer, None, label, numbers)
    check_prompt(prompt_column, prompt)
    messages = (
        (Message(role="assistant", content=answer),) if isinstance(answer, str) else without_prefix(answer, prompt)
    )
    check_completion(column, prompt, messages)
    return Completion(None, messages, label, numbers)


def _text(column: str, value: object) -> Text:
    return check_text(column, value) if not isinstance(value, list) else check_messages(column, value)


def _answer(column: str, value: object) -> Text:
    found = _text(column, value)
    if not isinstance(found, str) and found[-1]["role"] != "assistant":
        raise Fault(
            f"column {column!r}: the last message has the role {found[-1]['role']!r};"
            " accepted: messages that end with the assistant's, which is what is trained"
        )
    return found


def _verifier(value: object) -> dict[str, Any] | None:
    """An object with a name; a JSON string of one too, because Parquet columns cannot hold objects that differ."""
    if value is None:
        return None
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except ValueError:
            found = None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise Fault(
            f'column \'verifier\': the value is {shorten(value)}; accepted: an object like {{"name": "number"}}'
        )
    return found


def _content_hash(prompt: Text, completions: Sequence[Completion]) -> str:
    content = [prompt, [[answer.label, answer.text or answer.messages] for answer in completions]]
    return hashlib.sha256(json.dumps(content, ensure_ascii=True, sort_keys=True).encode()).hexdigest()[:16]


_READERS = {
    "paired": _paired,
    "grouped": _grouped,
    "unpaired": _unpaired,
    "demonstration": _demonstration,
    "prompt": _prompt_only,
}
