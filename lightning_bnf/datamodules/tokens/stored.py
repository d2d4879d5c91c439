"""Tokenized rows on disk: an Arrow file that is mapped into memory, so that rows are there when they are asked for.

Rows of a local file are tokenized once for a tokenizer, a chat template and a set of options; the next run opens them.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import ipc
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.answers import Text
from lightning_bnf.datamodules.reading.errors import reason
from lightning_bnf.datamodules.reading.files import streamable
from lightning_bnf.datamodules.reading.formats import format_of
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.tables import Table
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.datamodules.tokens.report import ReportText
from lightning_bnf.datamodules.tokens.rows import RowArrays, Rows
from lightning_bnf.datamodules.tokens.streamed import stream_rows
from lightning_bnf.runtime.files import cache_folder, replacing, write_text
from lightning_bnf.runtime.fingerprints import file_fingerprint, tokenizer_state
from lightning_bnf.runtime.progress import say
from lightning_bnf.runtime.shipped import here_or_shipped

FORMAT = 4  # of the files; a new one never meets the old
STORED_FROM = 2000  # rows of a file; less is tokenized in a second
_BATCH = 1000

_COMPLETION = pa.struct(
    [
        ("ids", pa.list_(pa.int32())),
        ("completion_mask", pa.list_(pa.bool_())),
        ("label", pa.int8()),
        ("numbers", pa.string()),
    ]
)
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("format", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completions", pa.list_(_COMPLETION)),
        ("rest", pa.string()),  # what training does not read, as JSON
    ]
)
_REST = ("verifier", "family", "prompt_id", "max_new_tokens", "kept_out", "prompt")


class StoredRows(Rows):
    """Rows of an Arrow file, read one by one when they are asked for."""

    def __init__(self, path: Path):
        self.path = path
        batches = ipc.open_file(pa.memory_map(str(path))).read_all().to_batches()
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)]).tolist()
        self._batches = [_Batch(batch) for batch in batches]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _at(self, index: int) -> tuple["_Batch", int]:
        batch = bisect_right(self._starts, index) - 1
        return self._batches[batch], index - self._starts[batch]

    def row(self, index: int) -> TokenizedRow:
        batch, at = self._at(index)
        arrays, rest = batch.arrays(at), self._rest(index)
        ids, trained, stops = arrays.ids.tolist(), arrays.trained.tolist(), np.cumsum(arrays.length).tolist()
        completions = tuple(
            TokenizedCompletion(ids[start:stop], trained[start:stop], label, numbers)
            for start, stop, label, numbers in zip([0, *stops], stops, arrays.label.tolist(), arrays.numbers)
        )
        source, format = batch.source[at].as_py(), batch.format[at]
        return TokenizedRow(arrays.id, source, format, arrays.prompt.tolist(), completions, **rest)

    def arrays(self, index: int) -> RowArrays:
        batch, at = self._at(index)
        return batch.arrays(at)

    def prompt(self, index: int) -> Text:
        prompt: Text = self._rest(index)["prompt"]
        return prompt

    def _rest(self, index: int) -> dict[str, Any]:
        batch, at = self._at(index)
        rest: dict[str, Any] = json.loads(batch.rest[at].as_py())
        if isinstance(rest["prompt"], list):
            rest["prompt"] = tuple(rest["prompt"])
        return rest


class _Batch:
    """A record batch's columns, as arrays that look into the mapped file and lists of what is short: reading a row is
    a few slices of them."""

    def __init__(self, batch: pa.RecordBatch):
        row_id, self.source, format, prompt, completions, self.rest = batch.columns
        self.id, self.format = row_id.to_pylist(), format.to_pylist()
        self.prompt, self.prompt_at = prompt.values.to_numpy(), prompt.offsets.to_pylist()
        ids, trained, label, numbers = completions.values.flatten()
        self.completion_at, self.numbers = completions.offsets.to_pylist(), numbers.to_pylist()
        self.ids, self.ids_at = ids.values.to_numpy(), ids.offsets.to_pylist()
        self.label, self.length = label.to_numpy().astype(np.int64), np.diff(ids.offsets.to_numpy()).astype(np.int64)
        self.trained = np.frombuffer(trained.values.buffers()[1] or b"", dtype=np.uint8)  # a bit for each token

    def arrays(self, at: int) -> RowArrays:
        first, stop = self.completion_at[at], self.completion_at[at + 1]
        begin, end = self.ids_at[first], self.ids_at[stop]
        bits = np.unpackbits(self.trained[begin // 8 : end // 8 + 1], bitorder="little")
        return RowArrays(
            id=self.id[at],
            pairs=format_of(self.format[at]).pairs,
            prompt=self.prompt[self.prompt_at[at] : self.prompt_at[at + 1]],
            ids=self.ids[begin:end],
            trained=bits[begin % 8 : begin % 8 + end - begin].view(bool),
            length=self.length[first:stop],
            label=self.label[first:stop],
            numbers=[{} if text == "{}" else json.loads(text) for text in self.numbers[first:stop]],
        )


def write_rows(path: Path, rows: Sequence[TokenizedRow]) -> StoredRows:
    """Write rows to a file, which appears whole or not at all, and open it."""
    return write_batches(path, (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)))


def write_batches(path: Path, batches: Iterable[Sequence[TokenizedRow]]) -> StoredRows:
    """The same of rows that come in batches."""
    with replacing(path) as unfinished, ipc.new_file(str(unfinished), _SCHEMA) as file:
        for rows in filter(None, batches):
            file.write_batch(pa.RecordBatch.from_pylist([_values(row) for row in rows], schema=_SCHEMA))
    return StoredRows(path)


def store_key(
    path: str | Table, tokenizer: PreTrainedTokenizerBase, options: DataOptions, end_ids: Sequence[int]
) -> str | None:
    """32 hex digits of all that a local file's tokenized rows depend on; None for what is no local file."""
    if isinstance(path, Table) or not (local := here_or_shipped(path, "data")).is_file():
        return None
    hashed = hashlib.sha256()
    with local.open("rb") as file:
        while piece := file.read(2**20):
            hashed.update(piece)
    versions = [FORMAT, *map(version, ("lightning_bnf", "transformers", "tokenizers"))]
    about = [versions, path, asdict(options), tokenizer_state(tokenizer), list(end_ids)]
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


def _values(row: TokenizedRow) -> dict[str, Any]:
    completions = [
        {
            "ids": np.asarray(completion.ids, dtype=np.int32),
            "completion_mask": completion.completion_mask,
            "label": completion.label,
            "numbers": json.dumps(dict(completion.numbers)),
        }
        for completion in row.completions
    ]
    rest = {name: getattr(row, name) for name in _REST}
    return {
        "id": row.id,
        "source": row.source,
        "format": row.format,
        "prompt_ids": np.asarray(row.prompt_ids, dtype=np.int32),
        "completions": completions,
        "rest": json.dumps(rest, ensure_ascii=False),
    }
