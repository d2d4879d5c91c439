"""Rows as they come, each with its place for error messages; and those that are in memory: lists of dicts, pandas
DataFrames and `datasets.Dataset`s."""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_bnf.datamodules.reading.errors import DataError, Fault, Faults, shorten
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.refusal import Refusal

if TYPE_CHECKING:
    import datasets
    import pandas

    Sources = str | Path | Sequence[Any] | pandas.DataFrame | datasets.Dataset
else:
    Sources = str | list[str]  # what can be typed on a command line and stand in a YAML file

ACCEPTED = "files, dataset folders, hub ids (owner/name), a list of dicts, a pandas DataFrame or a datasets.Dataset"


@dataclass(frozen=True)
class RawRecord:
    """One row as stored. `place` is `FILE:LINE`, of tables `FILE:ROW` from 1, of rows in memory `train[INDEX]`. With
    `text` its values are strings that may stand for numbers and lists, as in CSV files."""

    place: str
    values: dict[str, Any]
    text: bool = False


def add_columns(columns: dict[str, Any], record: RawRecord) -> None:
    """Add a record's columns to those of the records before it, each with the first value that it has."""
    for column, value in record.values.items():
        if columns.get(column) is None:
            columns[column] = value


@dataclass(frozen=True, eq=False)
class Table:
    """Rows in memory, under the name that messages call them by: `train`, or `train[1]` for the second of several."""

    name: str
    data: Any

    def __str__(self) -> str:
        return f"{self.name} ({_kind(self.data)})"

    def records(self) -> list[RawRecord]:
        """All rows, as plain Python values; what is missing (NaN) is None. Raises `DataError`."""
        records, faults = [], Faults()
        for index, row in enumerate(self._rows()):
            place = f"{self.name}[{index}]"
            if isinstance(row, Mapping):
                records.append(RawRecord(place, {str(column): plain(value) for column, value in row.items()}))
            else:
                faults.add(place, Fault(f"must be a dict like {{'prompt': ..., 'chosen': ...}}, got {shorten(row)}"))
        faults.raise_if_any()
        if not records:
            raise DataError(f"data.{self.name} must be at least one row, got an empty {_kind(self.data)}")
        return records

    def fingerprint(self) -> str:
        """16 hex digits of the rows' contents."""
        given = ({name: value for name, value in row.values.items() if value is not None} for row in self.records())
        return content_hash([json.dumps(values, sort_keys=True, default=repr) for values in given])

    def _rows(self) -> Sequence[Any]:
        if _is(self.data, "datasets", "Dataset"):
            return [{name: without_nulls(value) for name, value in row.items()} for row in self.data.to_list()]
        if not _is(self.data, "pandas", "DataFrame"):
            return list(self.data)
        if not self.data.columns.is_unique:
            twice = sorted({str(name) for name in self.data.columns[self.data.columns.duplicated()]})
            raise DataError(f"data.{self.name} must be of columns with different names, got {', '.join(twice)} twice")
        return self.data.to_dict("records")


_TABLE = re.compile(r"(train|validation|test)(\[\d+\])? \(\w+ of [\d,]+ rows\)")


def was_in_memory(source: str) -> bool:
    """Whether a config's text for a file stands for rows that a run had in memory, which are not there to be read."""
    return _TABLE.fullmatch(source) is not None and not Path(source).exists()


def sources_of(split: str, given: Any) -> list[str | Table]:
    """What was given for a split, one by one. Raises `Refusal` for what is no data."""
    if given is None:
        return []
    if not isinstance(given, (list, tuple)):
        return [_source(split, split, given)]
    if given and all(isinstance(entry, Mapping) for entry in given):
        return [Table(split, given)]
    return [_source(split, f"{split}[{i}]", entry) for i, entry in enumerate(given)]


def _source(split: str, name: str, given: Any) -> str | Table:
    if isinstance(given, (str, Path)):
        return str(given)
    if _is(given, "pandas", "DataFrame") or _is(given, "datasets", "Dataset"):
        return Table(name, given)
    if isinstance(given, list) and given and all(isinstance(row, Mapping) for row in given):
        return Table(name, given)
    hint = ""
    if _is(given, "datasets", "DatasetDict"):
        hint = f"; name a split of it, such as data[{next(iter(given), 'train')!r}]"
    elif hasattr(given, "to_pandas"):
        hint = "; give its .to_pandas()"
    raise Refusal(f"data.{split} must be {ACCEPTED}, got {shorten(given) if not hint else type(given).__name__}{hint}")


def plain(value: Any) -> Any:
    """A value as JSON would have it: of numpy's types Python's, NaN and pandas' signs for nothing as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(held) for held in value]
    if type(value).__module__.split(".")[0] == "numpy":
        return plain(value.tolist())
    if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def numbered(path: str, rows: Sequence[dict[str, Any]], before: int = 0) -> list[RawRecord]:
    """A table's rows, counted from 1; `before` are in front of them."""
    return [RawRecord(f"{path}:{number}", without_nulls(row)) for number, row in enumerate(rows, start=before + 1)]


def without_nulls(value: Any) -> Any:
    """A table's objects all have the same keys: those that a row does not have come back as null."""
    if isinstance(value, dict):
        return {key: without_nulls(held) for key, held in value.items() if held is not None}
    return [without_nulls(held) for held in value] if isinstance(value, list) else value


def _is(value: Any, library: str, name: str) -> bool:
    """Whether it is of a library's class, without importing the library: nobody has such a value without it."""
    module = sys.modules.get(library)
    return module is not None and isinstance(value, getattr(module, name))


def _kind(data: Any) -> str:
    return f"{type(data).__name__} of {len(data):,} rows"
