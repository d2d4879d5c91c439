"""Tokenized rows on disk: an Arrow file that is mapped into memory, so that rows are there when they are asked for.

Rows of a local file are tokenized once for a tokenizer, a chat template and a set of options; the next run opens them.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.answers import Text
from lightning_bnf.datamodules.reading.errors import reason
from lightning_bnf.datamodules.reading.files import streamable
from lightning_bnf.datamodules.reading.formats import codes_of
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.tables import Table
from lightning_bnf.datamodules.tokens.columns import Ints, RowColumns
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.record_batches import SCHEMA, StoredBatch, batch_of, merged
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.report import ReportText
from lightning_bnf.datamodules.tokens.rows import Name, RowArrays, Rows
from lightning_bnf.datamodules.tokens.streamed import stream_rows
from lightning_bnf.runtime.files import cache_folder, replacing, write_text
from lightning_bnf.runtime.fingerprints import file_fingerprint, tokenizer_state
from lightning_bnf.runtime.progress import say
from lightning_bnf.runtime.shipped import here_or_shipped

FORMAT = 7  # of the files; a new one never meets the old
STORED_FROM = 2000  # rows of a file; less is tokenized in a second
_BATCH = 1000


class StoredRows(Rows):
    """Rows of an Arrow file, read one by one or as columns when they are asked for."""

    def __init__(self, path: Path):
        self.path = path
        file = ipc.open_file(pa.memory_map(str(path)))
        self._batches = [StoredBatch(file.get_batch(i)) for i in range(file.num_record_batches)]
        self._starts = [0, *accumulate(map(len, self._batches))]

    def __len__(self) -> int:
        return self._starts[-1]

    def _at(self, index: int) -> tuple[StoredBatch, int]:
        batch = bisect_right(self._starts, index) - 1
        return self._batches[batch], index - self._starts[batch]

    def row(self, index: int) -> TokenizedRow:
        batch, at = self._at(index)
        return batch.row(at)

    def arrays(self, index: int) -> RowArrays:
        batch, at = self._at(index)
        return batch.arrays(at)

    def prompt(self, index: int) -> Text:
        batch, at = self._at(index)
        return batch.text(at)

    def source(self, index: int) -> str:
        batch, at = self._at(index)
        return str(batch.value("source", at))

    @cached_property
    def columns(self) -> RowColumns:
        return RowColumns.joined([batch.columns() for batch in self._batches])

    def values(self, name: Name) -> pa.ChunkedArray:
        return pa.chunked_array([batch.values(name) for batch in self._batches], type=pa.large_binary())

    def numbers(self, name: str) -> NDArray[np.float64]:
        return np.concatenate([np.zeros(0), *(batch.numbers(name) for batch in self._batches)])

    def content(self, rows: Ints) -> bytes:
        batch = np.searchsorted(self._starts, rows, side="right") - 1
        runs = np.split(rows, np.flatnonzero(np.diff(batch)) + 1)
        found = ((bisect_right(self._starts, run[0]) - 1, run) for run in runs if len(run))
        return b"".join(self._batches[number].content(run - self._starts[number]) for number, run in found)


def write_rows(path: Path, rows: Sequence[TokenizedRow]) -> StoredRows:
    """Write rows to a file, which appears whole or not at all, and open it."""
    return write_batches(path, (batch_of(rows[start : start + _BATCH]) for start in range(0, len(rows), _BATCH)))


def write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> StoredRows:
    """The same of rows that come in batches."""
    with replacing(path) as unfinished, ipc.new_file(str(unfinished), SCHEMA) as file:
        for batch in merged(batches):
            file.write_batch(batch)
    return StoredRows(path)


def store_key(
    path: str | Table, tokenizer: PreTrainedTokenizerBase, options: DataOptions, end_ids: Sequence[int]
) -> str | None:
    """32 hex digits of all that a local file's tokenized rows depend on; None for what is no local file, and where the
    code of a format of one's own cannot be had, such as of a notebook's cell."""
    if isinstance(path, Table) or not (local := here_or_shipped(path, "data")).is_file():
        return None
    codes = [] if options.kind is None else codes_of(options.kind)
    if codes is None:
        return None
    hashed = hashlib.sha256()
    with local.open("rb") as file:
        while piece := file.read(2**20):
            hashed.update(piece)
    versions = [FORMAT, *map(version, ("lightning_bnf", "transformers", "tokenizers"))]
    about = [versions, path, options.of_rows(), tokenizer_state(tokenizer), list(end_ids), *codes]
    hashed.update(json.dumps(about, sort_keys=True, default=str).encode())
    return hashed.hexdigest()[:32]


def load_stored(
    source: str | Table, tokenizer: PreTrainedTokenizerBase, options: DataOptions, end_ids: Sequence[int]
) -> tuple[Sequence[TokenizedRow], ReportText]:
    """The rows of a file, dataset folder, hub id or table, and the report on them; large files are tokenized only once.

    Raises `DataError` as `dataset.load_rows` does.
    """
    key = store_key(source, tokenizer, options, end_ids)
    stored = cache_folder() / "tokens" / f"{key}.arrow"
    if key and (opened := _opened(stored)):
        return opened
    file = here_or_shipped(source, "data") if key and isinstance(source, str) else None
    if file is not None and streamable(file):
        found, report = stream_rows(str(source), file, tokenizer, options, end_ids, partial(write_batches, stored))
        texts = report.texts(tokenizer)
    else:
        rows, report = load_rows(source, tokenizer, options, end_ids)
        texts = report.texts(tokenizer)
        if key is None or len(rows) < STORED_FROM:
            return rows, texts
        found = write_rows(stored, rows)
    about = {"checksum": file_fingerprint(stored), "report": texts._asdict()}
    write_text(stored.with_suffix(".json"), json.dumps(about))  # last: it says that the rows are whole
    return found, texts


def _opened(stored: Path) -> tuple[StoredRows, ReportText] | None:
    """Rows and report as they were written; None where there are none, or others than were written."""
    beside = stored.with_suffix(".json")
    if not stored.exists() or not beside.exists():
        return None
    try:
        about = json.loads(beside.read_text())
        if about["checksum"] == file_fingerprint(stored):
            return StoredRows(stored), ReportText(**about["report"])
        why = "its checksum is another"
    except Exception as error:  # whatever a broken file leads to
        why = reason(error)
    say(f"tokenized rows {stored}: not as they were written ({why}); the rows are tokenized anew")
    return None
