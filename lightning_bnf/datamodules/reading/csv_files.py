"""CSV and TSV files: what spreadsheets write. Every value is a string; `columns.typed_values` makes more of it."""

import csv
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lightning_bnf.datamodules.reading.errors import DataError, Fault, Faults, shorten
from lightning_bnf.datamodules.reading.streams import Opened
from lightning_bnf.datamodules.reading.tables import RawRecord

if TYPE_CHECKING:
    import _csv  # where typeshed has the reader's type

_LONGEST = 2**27  # characters of a cell; the csv module's own limit, 128 Ki, is under a long document


def read_csv(path: str, file: Path, tabs: bool = False) -> list[RawRecord]:
    """All rows, by the names of the header; empty cells are None. With `tabs` tabs part the cells; else commas, or
    what parts the names of the header where it has no comma: semicolons or tabs.

    Rows are counted as a spreadsheet counts them: the header is row 1. Where cells hold line breaks, places say an
    editor's line too. Raises `DataError`.
    """
    with Opened(path, file) as stream, _long_cells():
        lines = _decoded(path, stream)
        first = next(lines, "")
        delimiter = "\t" if tabs else _delimiter(first)
        spaced = f"{delimiter} " in first
        reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True, skipinitialspace=spaced)
        return _records(path, _rows(path, reader))


def _records(path: str, rows: Iterator[tuple[str, list[str]]]) -> list[RawRecord]:
    names = _names(path, next(rows, ("", []))[1])
    records, faults = [], Faults()
    for place, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue  # a blank line, or one of commas alone
        if len(cells) != len(names):
            faults.add(
                place,
                Fault(
                    f"must be {len(names)} cells, as in the header, got {len(cells)} (a text with the separator or a"
                    f" line break in it must stand in double quotes): {shorten(cells)}"
                ),
            )
            continue
        records.append(RawRecord(place, {name: cell or None for name, cell in zip(names, cells)}, text=True))
    faults.raise_if_any()
    return records


def _names(path: str, header: list[str]) -> list[str]:
    """The columns' names; those without one, such as the index that pandas writes, by their place."""
    names = [name.strip() or f"column {place}" for place, name in enumerate(header, start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}:1: the header's names must differ, got {', '.join(twice)} twice")
    return names


def _rows(path: str, reader: "_csv.Reader") -> Iterator[tuple[str, list[str]]]:
    """Each row with its place."""
    for number in itertools.count(1):
        line = reader.line_num + 1  # where the row begins
        place = f"{path}:{number}" if line == number else f"{path}:{number} (line {line})"
        try:
            yield place, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{place}: must be CSV, with texts that hold quotes in double quotes and those quotes doubled, got a"
                f" row that cannot be read ({error})"
            ) from None


def _decoded(path: str, stream: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: must be UTF-8 (in spreadsheets: save as CSV UTF-8), got byte"
                f" {shorten(line[error.start : error.end])} in line {number}"
            ) from None


def _delimiter(header: str) -> str:
    for delimiter in (",", ";", "\t"):
        try:
            if len(next(csv.reader([header], delimiter=delimiter), [])) > 1:
                return delimiter
        except csv.Error:
            continue
    return ","


@contextmanager
def _long_cells() -> Iterator[None]:
    """The csv module has one limit for the whole process: it is put back."""
    before = csv.field_size_limit(_LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)
