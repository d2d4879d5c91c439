"""From a path or a hub id to raw records: one dict per row, with its place for error messages. Nothing is unpickled."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pyarrow
import pyarrow.parquet

from lightning_bnf.datamodules.reading.errors import DataError, Fault, Faults, nearest, shorten
from lightning_bnf.runtime.refusal import Refusal

_JSON_LINES = (".jsonl", ".ndjson", ".json")
_ACCEPTED = "a .jsonl file (one JSON object a line), a .parquet file, a dataset folder or a hub id like owner/name"


@dataclass(frozen=True)
class RawRecord:
    """One row as stored. `place` is `FILE:LINE`, for Parquet and hub data `FILE:ROW`; both count from 1."""

    place: str
    values: dict[str, Any]


def read_raw(
    path: str, split: str | None = None, subset: str | None = None, revision: str | None = None
) -> list[RawRecord]:
    """All rows of `path`; `split`, `subset` and `revision` are for hub ids and dataset folders only."""
    file = Path(path).expanduser()
    suffix = file.suffix.lower()
    is_file = file.is_file() or (not file.is_dir() and suffix in (*_JSON_LINES, ".parquet"))
    if not is_file:
        return _read_hub(path, file, split, subset, revision)
    if split is not None:
        raise DataError(f"{path}: split must be null for a single file, which has none, got {split!r}")
    if not file.is_file():
        _refuse_missing(path, file)
    if suffix == ".parquet":
        records = _read_parquet(path, file)
    elif suffix in _JSON_LINES:
        records = _read_json_lines(path, file)
    else:
        raise DataError(f"{path}: must be {_ACCEPTED}, got a file that ends in {suffix!r}")
    if not records:
        raise DataError(f"{path}: must be at least one row, got an empty file")
    return records


def _refuse_missing(path: str, file: Path) -> NoReturn:
    folder = file.parent
    if not folder.is_dir():
        raise DataError(f"{path}: there is no such file, and no folder {str(folder)!r}")
    raise DataError(f"{path}: there is no such file; {_hint(file)}")


def _hint(file: Path) -> str:
    """The nearest name in the folder of a file that is not there, or what is accepted."""
    near = nearest(file.name, (entry.name for entry in file.parent.iterdir())) if file.parent.is_dir() else None
    return f"did you mean {str(file.parent / near)!r}?" if near else f"it must be {_ACCEPTED}"


def _read_json_lines(path: str, file: Path) -> list[RawRecord]:
    records, faults = [], Faults()
    for number, offset, line in _lines(file):
        place = f"{path}:{number}"
        try:
            records.append(RawRecord(place, _parse_line(line, offset)))
        except Fault as fault:
            faults.add(place, fault)
    faults.raise_if_any()
    return records


def _lines(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """Line number from 1, byte offset in the file, and the bytes of every line that is not blank."""
    offset = 0
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            start = 3 if number == 1 and line.startswith(b"\xef\xbb\xbf") else 0  # a byte order mark is no content
            if line[start:].strip():
                yield number, offset + start, line[start:]
            offset += len(line)


def _parse_line(line: bytes, offset: int) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Fault(
            f"must be UTF-8, got byte {shorten(line[error.start : error.end])} at byte offset {offset + error.start} of"
            f" the file (byte {error.start} of the line)"
        ) from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise Fault(
            f"must be one JSON object on each line, got broken JSON at column {error.colno} ({error.msg}):"
            f" {shorten(text.strip())}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise Fault(
            f"must be one JSON object on each line, got broken JSON ({error}): {shorten(text.strip())}"
        ) from None
    if not isinstance(value, dict):
        raise Fault(
            f"must be one JSON object on each line, got {_json_type(value)}: {shorten(value)}"
            + (' (write a list\'s elements one a line: jq -c ".[]")' if isinstance(value, list) else "")
        )
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise Refusal(f"{name} is not JSON")


def _json_type(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _read_parquet(path: str, file: Path) -> list[RawRecord]:
    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None
    return _numbered(path, rows)


def _numbered(path: str, rows: list[dict[str, Any]]) -> list[RawRecord]:
    return [RawRecord(f"{path}:{number}", _without_nulls(row)) for number, row in enumerate(rows, start=1)]


def _without_nulls(value: Any) -> Any:
    """A table's objects all have the same keys: those that a row does not have come back as null."""
    if isinstance(value, dict):
        return {key: _without_nulls(held) for key, held in value.items() if held is not None}
    return [_without_nulls(held) for held in value] if isinstance(value, list) else value


def _read_hub(path: str, folder: Path, split: str | None, subset: str | None, revision: str | None) -> list[RawRecord]:
    from datasets import Dataset, DatasetDict, load_dataset  # brings pandas; local files do without
    from datasets.exceptions import DatasetsError

    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local and not folder.is_dir():
        _refuse_missing(path, folder)
    name = str(folder) if folder.is_dir() else path
    try:
        data = load_dataset(name, name=subset, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        here = "as a dataset folder" if folder.is_dir() else "there is no such file or folder, and as a hub id"
        reason = str(error).strip().split("\n")[0]
        hint = f"it must be {_ACCEPTED}" if folder.is_dir() else _hint(folder)
        raise DataError(f"{path}: {here} it cannot be loaded ({reason}); {hint}") from error
    if isinstance(data, DatasetDict):
        if len(data) != 1:
            raise DataError(f"{path}: split must be one of {', '.join(data)}, got none")
        split, data = next(iter(data.items()))
    if not isinstance(data, Dataset):
        raise DataError(f"{path}: must be a table of rows, got a {type(data).__name__}")
    if not len(data):
        raise DataError(f"{path}[{split}]: must be at least one row, got an empty split")
    return _numbered(f"{path}[{split}]", data.to_list())
