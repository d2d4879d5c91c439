"""Preference data as rows: every format is read into `Row`, and every row is checked before anything is trained."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_bnf.datamodules.reading.answers import Completion, Text
from lightning_bnf.datamodules.reading.columns import token_count, typed, typed_values
from lightning_bnf.datamodules.reading.errors import DataError, Fault, Faults, shorten
from lightning_bnf.datamodules.reading.files import read_raw
from lightning_bnf.datamodules.reading.formats import Format
from lightning_bnf.datamodules.reading.matching import detect_format, known_columns, map_columns, refuse_sharegpt
from lightning_bnf.datamodules.reading.tables import RawRecord, Table

__all__ = ["Completion", "DataError", "RecordFile", "Row", "Text", "read_file", "read_rows"]


@dataclass(frozen=True)
class Row:
    """One row of a file.

    id: 16 hex digits, the hash of the prompt and of the completions with their labels; the same in every file.
    source: where the row stands, e.g. `train.jsonl:17`.
    format: the name of a `Format`: paired, grouped, unpaired, demonstration, prompt, or a class path.
    prompt: messages, or plain text as the file has it.
    completions: as the format reads them: (chosen +1, rejected -1), (samples +1, ..., rejected -1), one, or none.
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
    source: str | Table,
    split: str | None = None,
    column_map: Mapping[str, str] | None = None,
    format: str = "auto",
    ignore_columns: Sequence[str] = (),
) -> list[Row]:
    """The rows of a file, a dataset folder, a hub id or a table. Raises `DataError`."""
    return list(read_file(source, split, column_map, format, ignore_columns).rows)


def read_file(
    source: str | Table,
    split: str | None = None,
    column_map: Mapping[str, str] | None = None,
    format: str = "auto",
    ignore_columns: Sequence[str] = (),
    subset: str | None = None,
    revision: str | None = None,
) -> RecordFile:
    """Read and check one file or table; see `options.DataOptions` for the arguments."""
    path, known = str(source), known_columns(format) | set(column_map or ())
    records = read_raw(source, split, subset, revision, known)
    columns = list(dict.fromkeys(column for record in records for column in record.values))
    ours = map_columns(path, columns, column_map or {}, format)
    refuse_sharegpt(records, ours, format)
    found = detect_format(path, set(ours.values()), format, ignore_columns, column_map)
    reads = found.reads(set(ours.values()))
    rows, faults = [], Faults()
    for record in records:
        values = {ours[column]: value for column, value in record.values.items() if value is not None}
        try:
            if record.text:
                values = typed_values({column: cell for column, cell in values.items() if column in reads})
            rows.append(_row(replace(record, values=values), found, reads))
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
            got = "an empty cell" if record.text else "none or null"
            raise Fault(f"column {column!r} must be given in every row, got {got}: fill it in or take the row out")
    prompt, completions = found.read({column: values[column] for column in reads if column in values})
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
        raise Fault(f'column \'verifier\' must be an object like {{"name": "number"}}, got {shorten(value)}')
    return found


def _content_hash(prompt: Text, completions: Sequence[Completion]) -> str:
    content = [prompt, [[answer.label, answer.text or answer.messages] for answer in completions]]
    return hashlib.sha256(json.dumps(content, ensure_ascii=True, sort_keys=True).encode()).hexdigest()[:16]
