"""Large files: read, checked and tokenized row by row into the store, so that memory does not grow with them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.errors import DataError, Fault, Unfit
from lightning_bnf.datamodules.reading.files import stream_raw
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.records import Row, RowReader, reader_of
from lightning_bnf.datamodules.reading.tables import RawRecord
from lightning_bnf.datamodules.tokens.load import AT_ONCE, Loading, sampled
from lightning_bnf.datamodules.tokens.record_batches import batch_of
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.datamodules.tokens.report import Report
from lightning_bnf.datamodules.tokens.rows import Rows

Write = Callable[[Iterator[pa.RecordBatch]], Rows]


def stream_rows(
    path: str,
    file: Path,
    tokenizer: PreTrainedTokenizerBase,
    options: DataOptions,
    end_ids: Iterable[int],
    write: Write,
) -> tuple[Rows, Report]:
    """What `load_rows` gives of a file, its rows in the store that `write` makes of the batches.

    The file is read twice: which columns it has is known when all its rows were seen. Raises `DataError`, and then
    nothing is stored.
    """
    count, columns = 0, dict[str, None]()
    for record in stream_raw(path, file):
        columns |= dict.fromkeys(record.values)
        count += 1
    if not count:
        raise DataError(f"{path}: must be at least one row, got an empty file")
    reader = reader_of(path, list(columns), options.column_map, options.format, options.ignore_columns or ())
    loading = Loading(path, Renderer(tokenizer, options.rendering, end_ids), options, [])
    repeated: list[str] = []
    reports: list[Report] = []

    def batches() -> Iterator[pa.RecordBatch]:
        with loading.progress(count) as bar:
            for rows, taken in _chunks(stream_raw(path, file), reader, loading, repeated):
                yield batch_of(loading.take(rows))
                bar.update(taken)
        reports.append(loading.report(reader.format.name, reader.labels, reader.unread(), tuple(repeated)))

    stored = write(batches())
    return stored, replace(reports[0], samples=tuple(stored.row(i) for i in sampled(len(stored))))


def _chunks(
    records: Iterator[RawRecord], reader: RowReader, loading: Loading, repeated: list[str]
) -> Iterator[tuple[list[Row], int]]:
    """Rows, some at once, and how many records they were read from."""
    seen: set[int] = set()  # of ids of 64 bits: a string each would take several times as much
    while some := list(islice(records, AT_ONCE)):
        rows = []
        for record in some:
            try:
                row = reader.row(record)
            except Unfit as reason:
                loading.unfit.append((record.place, reason))
                continue
            except Fault as fault:
                loading.faults.add(record.place, fault)
                continue
            number = int(row.id, 16)
            if number in seen:
                repeated.append(row.source)
            seen.add(number)
            rows.append(row)
        yield rows, len(some)
