"""JSON lines, and JSON arrays of objects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lightning_bnf.datamodules.reading.errors import DataError, Fault, Faults, shorten
from lightning_bnf.datamodules.reading.streams import Opened
from lightning_bnf.datamodules.reading.tables import RawRecord
from lightning_bnf.runtime.refusal import Refusal

_BOM = b"\xef\xbb\xbf"


def read_json_lines(path: str, file: Path) -> list[RawRecord]:
    """One object a line. Raises `DataError`, naming the first faulty lines."""
    return list(json_lines(path, file))


def json_lines(path: str, file: Path) -> Iterator[RawRecord]:
    """The same, one by one. Raises `DataError` behind the last line, naming the first faulty ones."""
    faults = Faults()
    with Opened(path, file) as stream:
        for number, offset, line in _lines(stream):
            place = f"{path}:{number}"
            try:
                yield RawRecord(place, _parse_line(line, offset))
            except Fault as fault:
                faults.add(place, fault)
    faults.raise_if_any()


def read_json(path: str, file: Path, columns: frozenset[str]) -> list[RawRecord]:
    """A list of objects, an object that holds one such list, or one object a line.

    `columns` are those that rows may have: an object with one of them is a row. Rows are counted from 1.
    """
    with Opened(path, file) as stream:
        content = stream.read().removeprefix(_BOM)
    try:
        whole = _parsed(content)
    except json.JSONDecodeError as error:
        if content.lstrip()[:1] != b"[":
            return read_json_lines(path, file)  # it says which line
        raise DataError(
            f"{path}: must be a list of JSON objects, got broken JSON at line {error.lineno}, column {error.colno}"
            f" ({error.msg})"
        ) from None
    except Fault as fault:
        raise DataError(f"{path}: {fault}") from None
    except (ValueError, RecursionError) as error:
        if content.lstrip()[:1] != b"[":
            return read_json_lines(path, file)
        raise DataError(f"{path}: must be a list of JSON objects, got broken JSON ({error})") from None
    if isinstance(whole, dict):
        if columns & set(whole):
            return [RawRecord(f"{path}:1", whole)]
        whole = _only_list(path, whole)
    if not isinstance(whole, list):
        return read_json_lines(path, file)
    records, faults = [], Faults()
    for number, row in enumerate(whole, start=1):
        place = f"{path}:{number}"
        if isinstance(row, dict):
            records.append(RawRecord(place, row))
        else:
            faults.add(place, Fault(f"must be a JSON object, got {_json_type(row)}: {shorten(row)}"))
    faults.raise_if_any()
    return records


def _only_list(path: str, whole: dict[str, Any]) -> list[Any]:
    """The one list of objects that an object holds, such as `{"version": 1, "data": [...]}`."""
    lists = {name: held for name, held in whole.items() if isinstance(held, list) and held and _objects(held)}
    if len(lists) == 1:
        return next(iter(lists.values()))
    got = f"an object with {len(lists)} of them ({', '.join(lists)})" if lists else f"an object with {', '.join(whole)}"
    raise DataError(
        f"{path}: must be one list of JSON objects, or hold one, got {got}; write the rows into a file of their own"
    )


def _objects(held: list[Any]) -> bool:
    return all(isinstance(row, dict) for row in held)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Line number from 1, byte offset in the file, and the bytes of every line that is not blank."""
    offset = 0
    for number, line in enumerate(stream, start=1):
        start = 3 if number == 1 and line.startswith(_BOM) else 0  # a byte order mark is no content
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
        value = _parsed(text)
    except json.JSONDecodeError as error:
        raise Fault(
            f"must be one JSON object on each line, got broken JSON at column {error.colno} ({error.msg}):"
            f" {shorten(text.strip())}"
        ) from None
    except Fault:
        raise
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


def _parsed(text: str | bytes) -> Any:
    return json.loads(text, parse_constant=_constant, object_pairs_hook=_each_key_once)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a key that stands twice, JSON readers take the last value in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Fault(f"must be JSON objects with each key once, got {shorten(twice)} twice")
    return found


def _constant(name: str) -> None:
    """NaN is a missing value, as in tables; infinities are no value at all."""
    if name == "NaN":
        return
    raise Refusal(f"{name} is not JSON")


def _json_type(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
