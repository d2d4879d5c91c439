"""Preference data as rows: every format is read into `Row`, and every row is checked before anything is trained."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_bnf.datamodules.reading.answers import Completion, Text
from lightning_bnf.datamodules.reading.columns import check_votes, line, token_count, typed, typed_values, vote
from lightning_bnf.datamodules.reading.errors import EMPTY, UNLABELLED, DataError, Fault, Faults, Unfit, reason, shorten
from lightning_bnf.datamodules.reading.files import read_raw
from lightning_bnf.datamodules.reading.formats import FORMATS, Format
from lightning_bnf.datamodules.reading.matching import detect_format, known_columns, map_columns
from lightning_bnf.datamodules.reading.messages import encodable, other_keys, with_tools, without_keys
from lightning_bnf.datamodules.reading.tables import RawRecord, Table, add_columns
from lightning_bnf.datamodules.reading.tools import check_tools, refuse_media

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
    """What one file holds.

    rows: those that can be used; format: the one found; ignored: the columns and keys of messages that nothing reads
    repeated: places of rows that occur before; contradicted: those where an answer occurs with the other label for the
    first time; labels: how often a label stands there for preferred and dispreferred, where it is another word than
    true and false; votes: the first places of the labels 0 and -1
    """

    path: str
    rows: tuple[Row, ...]
    format: str
    conversational: bool
    ignored: tuple[str, ...]
    repeated: tuple[str, ...]
    contradicted: tuple[str, ...]
    labels: Mapping[tuple[str, bool], int]
    votes: Mapping[str, str]


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
    unfit: list[tuple[str, Unfit]] | None = None,
) -> RecordFile:
    """Read and check one file or table; see `options.DataOptions` for the arguments.

    Rows that may be dropped, such as those of an empty answer, go to `unfit` with their places; without it they are
    faults. Raises `DataError`.
    """
    path, known = str(source), known_columns(format) | set(column_map or ())
    records = read_raw(source, split, subset, revision, known)
    columns: dict[str, Any] = {}
    for record in records:
        add_columns(columns, record)
    reader = reader_of(path, columns, column_map, format, ignore_columns)
    rows, faults = [], Faults()
    for record in records:
        try:
            rows.append(reader.row(record))
        except Fault as fault:
            if unfit is not None and isinstance(fault, Unfit):
                unfit.append((record.place, fault))
            else:
                faults.add(record.place, fault)
    faults.raise_if_any()
    check_votes(path, reader.votes)
    repeats = Repeats()
    for row in rows:
        repeats.add(row.source, int(row.id, 16), opposite(row))
    return RecordFile(
        path=path,
        rows=tuple(rows),
        format=reader.format.name,
        conversational=any(not isinstance(row.prompt, str) for row in rows),
        ignored=reader.unread(),
        repeated=tuple(repeats.repeated),
        contradicted=tuple(repeats.contradicted),
        labels=reader.labels,
        votes=reader.votes,
    )


def reader_of(
    path: str,
    columns: Mapping[str, Any],
    column_map: Mapping[str, str] | None = None,
    format: str = "auto",
    ignore_columns: Sequence[str] = (),
) -> "RowReader":
    """What makes rows of the records of a file with these columns, each with its first value. Raises `DataError` for
    columns of no format."""
    unwritable = next((column for column in columns if not encodable(column)), None)
    if unwritable is not None:
        raise DataError(f"{path}: columns must have names that can be written as UTF-8, got {unwritable!r}")
    ours = map_columns(path, columns, column_map or {}, format)
    first = {ours[column]: value for column, value in columns.items()}
    found = detect_format(path, first, format, ignore_columns, column_map)
    return RowReader(found, found.reads(set(ours.values()) - set(ignore_columns)), ours, frozenset(ignore_columns))


class RowReader:
    """Makes rows of a file's records, and notes what else it saw in them."""

    def __init__(self, found: Format, reads: frozenset[str], ours: Mapping[str, str], ignored: frozenset[str]):
        self.format, self.reads, self.ours, self.ignored = found, reads, ours, ignored
        self.needed = sorted(found.matches(reads) or ())
        self.keys: set[str] = set()
        self.labels: Counter[tuple[str, bool]] = Counter()
        self.votes: dict[str, str] = {}  # the first places of the labels 0 and -1

    def unread(self) -> tuple[str, ...]:
        """The columns that nothing reads, and the keys of messages that nothing has read so far."""
        return *(column for column, ours in self.ours.items() if ours not in self.reads), *sorted(self.keys)

    def row(self, record: RawRecord) -> Row:
        """Raises `Fault`. What else is raised in a format of ours comes of values that nobody thought of."""
        values = {self.ours[column]: value for column, value in record.values.items() if value is not None}
        try:
            refuse_media({column: value for column, value in values.items() if column not in self.ignored})
            values = {column: value for column, value in values.items() if column in self.reads}
            return self._row(record, values)
        except Fault:
            raise
        except Exception as error:
            if self.format not in FORMATS:
                raise
            raise Fault(
                f"must be a row of texts, numbers and messages, got {shorten(values)} ({reason(error)})"
            ) from error

    def _row(self, record: RawRecord, given: Mapping[str, Any]) -> Row:
        values = typed_values(given) if record.text else given
        if self.ignored:
            values = {column: without_keys(value, self.ignored) for column, value in values.items()}
        for column in self.needed:
            if column not in values:
                got = "an empty cell" if record.text else "none or null"
                told = f"column {column!r} must be given in every row, got {got}: fill it in or take the row out"
                raise Unfit(UNLABELLED if column == "label" else EMPTY, told)
        prompt, completions = self.format.read(values)
        tools = check_tools("tools", values.get("tools"))
        if tools:
            prompt = with_tools("tools", prompt, tools)
        for column, value in values.items():
            if column != "tools":  # all of their keys are rendered
                self.keys |= {f"{column}[].{key}" for key in other_keys(value)}
        label = given.get("label")
        if label is not None and not isinstance(label, bool) and completions:
            self.labels[shorten(label), completions[0].label > 0] += 1
            if (cast := vote(label)) is not None:
                self.votes.setdefault(cast, record.place)
        return Row(
            id=_content_hash(prompt, completions),
            source=record.place,
            format=self.format.name,
            prompt=prompt,
            completions=completions,
            verifier=_verifier(values.get("verifier")),
            family=line("family", values.get("family")),
            prompt_id=line("prompt_id", values.get("prompt_id"), (str, int), "a string or a number"),
            max_new_tokens=token_count("max_new_tokens", values.get("max_new_tokens")),
            kept_out=typed("kept_out", values.get("kept_out", False), (bool,), "true or false"),
        )


_DEEPEST = 20  # levels of a verifier's arguments


def _verifier(value: object) -> dict[str, Any] | None:
    """An object with a name; a JSON string of one too, because Parquet columns cannot hold objects that differ."""
    if value is None:
        return None
    found = value
    try:
        if isinstance(value, str):
            found = json.loads(value)
        if _deeper(found, _DEEPEST):
            found = None
        json.dumps(found, ensure_ascii=False).encode()  # as it is stored
    except (ValueError, TypeError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise Fault(f'column \'verifier\' must be an object like {{"name": "number"}}, got {shorten(value)}')
    return found


def _deeper(value: object, levels: int) -> bool:
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(part, levels - 1) for part in held)


class Repeats:
    """Notes, row after row, what occurred before: the same again, or the same answer with the other label."""

    def __init__(self) -> None:
        self.repeated: list[str] = []
        self.contradicted: list[str] = []
        self._ids: set[int] = set()  # of 64 bits: a string each would take several times as much

    def add(self, source: str, id: int, opposite: int) -> None:
        """The next row; `opposite` as the function of that name gives it."""
        if id in self._ids:
            self.repeated.append(source)
        elif opposite in self._ids:
            self.contradicted.append(source)
        self._ids.add(id)


def opposite(row: Row) -> int:
    """The id, as a number, that a row of one answer would have with the other label; that of any other row itself."""
    if len(row.completions) != 1:
        return int(row.id, 16)
    (completion,) = row.completions
    return int(_content_hash(row.prompt, [replace(completion, label=-completion.label)]), 16)


def _content_hash(prompt: Text, completions: Sequence[Completion]) -> str:
    content = [prompt, [[answer.label, answer.text or answer.messages] for answer in completions]]
    return hashlib.sha256(json.dumps(content, ensure_ascii=True, sort_keys=True).encode()).hexdigest()[:16]
