"""From a path, a hub id or rows in memory to raw records: one dict per row, with its place for error messages. Nothing
is unpickled."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pyarrow.parquet

from lightning_bnf.datamodules.reading.csv_files import read_csv
from lightning_bnf.datamodules.reading.errors import DataError, border, nearest, some_of
from lightning_bnf.datamodules.reading.hub import SAVED, read_hub
from lightning_bnf.datamodules.reading.json_files import json_lines, read_json, read_json_lines
from lightning_bnf.datamodules.reading.streams import COMPRESSED, ending
from lightning_bnf.datamodules.reading.tables import RawRecord, Table, numbered, was_in_memory
from lightning_bnf.runtime.shipped import here_or_shipped

_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_ACCEPTED = (
    "a .jsonl, .json, .csv or .tsv file (also as .gz or .zst), a .parquet file, a dataset folder or a hub id like"
    " owner/name"
)
_BATCH = 1000  # rows of a Parquet file that are held at once
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def read_raw(
    source: str | Table,
    split: str | None = None,
    subset: str | None = None,
    revision: str | None = None,
    columns: frozenset[str] = frozenset(),
) -> list[RawRecord]:
    """All rows of a source; `split`, `subset` and `revision` are for hub ids and dataset folders only, `columns` those
    that rows may have. Raises `DataError`, whatever is wrong with the source."""
    with border(f"{source}: must be data that can be read"):
        if isinstance(source, Table):
            return source.records()
        return _records(source, here_or_shipped(source, "data"), split, subset, revision, columns)


STREAMED_FROM = 2**24  # bytes of a file, compressed or not


def streamable(file: Path) -> bool:
    """Whether a file is read row by row: one of lines or of Parquet, large enough for it to matter."""
    lines = ending(file) in (".jsonl", ".ndjson")
    return file.is_file() and (lines or file.suffix.lower() == ".parquet") and file.stat().st_size >= STREAMED_FROM


def stream_raw(path: str, file: Path) -> Iterator[RawRecord]:
    """The rows of a streamable file one by one, as `read_raw` gives them all. Raises `DataError`."""
    with border(f"{path}: must be data that can be read"):
        if ending(file) in (".jsonl", ".ndjson"):
            yield from json_lines(path, file)
            return
        before = 0
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=_BATCH):
            yield from numbered(path, batch.to_pylist(), before)
            before += batch.num_rows


def _records(
    path: str, file: Path, split: str | None, subset: str | None, revision: str | None, columns: frozenset[str]
) -> list[RawRecord]:
    kind = ending(file)
    if file.exists() and not file.is_file() and not file.is_dir():  # before it is opened: nobody may ever write to it
        raise DataError(f"{path}: must be {_ACCEPTED}, got a named pipe, socket or device")
    is_file = file.is_file() or (not file.is_dir() and kind in _ENDINGS)
    if not is_file:
        _refuse_no_hub_id(path, file)
        if file.is_dir():
            _refuse_mixed(path, file)
        hint = f"it must be {_ACCEPTED}" if file.is_dir() else _hint(file)
        return read_hub(path, file, split, subset, revision, hint)
    if split is not None:
        raise DataError(f"{path}: split must be null for a single file, which has none, got {split!r}")
    if not file.is_file():
        _refuse_missing(path, file)
    records = _read_file(path, file, kind, columns)
    if not records:
        raise DataError(f"{path}: must be at least one row, got an empty file")
    return records


def _read_file(path: str, file: Path, kind: str, columns: frozenset[str]) -> list[RawRecord]:
    if kind == ".parquet" and file.suffix.lower() not in COMPRESSED:
        with border(f"{path}: must be a Parquet file that can be read"):
            return numbered(path, pyarrow.parquet.read_table(file).to_pylist())
    if kind in (".jsonl", ".ndjson"):
        return read_json_lines(path, file)
    if kind == ".json":
        return read_json(path, file, columns)
    if kind in (".csv", ".tsv"):
        return read_csv(path, file, tabs=kind == ".tsv")
    raise DataError(f"{path}: must be {_ACCEPTED}, got a file that ends in {''.join(file.suffixes[-2:])!r}")


def _refuse_no_hub_id(path: str, folder: Path) -> None:
    """A hub id has an owner: a bare word could be the name of a loader, which takes whatever files lie around."""
    if folder.is_dir():
        return
    if was_in_memory(path):
        raise DataError(f"{path}: these rows were in memory when the run was made, and its config holds none of them")
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        _refuse_missing(path, folder)
    if not _HUB_ID.fullmatch(path):
        raise DataError(f"{path}: there is no such file or folder, and no owner/name of a hub id; {_hint(folder)}")


def _refuse_mixed(path: str, folder: Path) -> None:
    """Of a folder with files of several kinds, `datasets` reads those of one kind and passes over the others."""
    files = sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_file() and ending(entry) in _ENDINGS and entry.name != "dataset_infos.json"  # of the hub
    )
    saved = any((folder / name).is_file() for name in SAVED)
    if len({ending(file) for file in files}) > 1 and not saved:
        names = some_of([str(Path(path) / file.name) for file in files])
        raise DataError(f"{path}: must be a folder of data files of one kind, got several; name those to read: {names}")


def _refuse_missing(path: str, file: Path) -> NoReturn:
    folder = file.parent
    if not folder.is_dir():
        raise DataError(f"{path}: there is no such file, and no folder {str(folder)!r}")
    raise DataError(f"{path}: there is no such file; {_hint(file)}")


def _hint(file: Path) -> str:
    """The nearest name in the folder of a file that is not there, or what is accepted."""
    near = nearest(file.name, (entry.name for entry in file.parent.iterdir())) if file.parent.is_dir() else None
    return f"did you mean {str(file.parent / near)!r}?" if near else f"it must be {_ACCEPTED}"
