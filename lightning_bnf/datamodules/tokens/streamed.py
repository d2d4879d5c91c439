"""Large files: read, checked and tokenized row by row into the store, so that memory does not grow with them."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.errors import DataError, Fault, Unfit
from lightning_bnf.datamodules.reading.files import stream_raw
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.records import RowReader, reader_of
from lightning_bnf.datamodules.reading.tables import RawRecord
from lightning_bnf.datamodules.tokens.load import AT_ONCE, Tally, fitting, report_of, sampled, tokenizing
from lightning_bnf.datamodules.tokens.record_batches import batch_of
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.datamodules.tokens.report import Report
from lightning_bnf.datamodules.tokens.rows import Rows
from lightning_bnf.runtime.distributed import ranks
from lightning_bnf.runtime.pools import in_order, processes_for

Write = Callable[[Iterator[pa.RecordBatch]], Rows]


@dataclass(frozen=True)
class Tokenized:
    """What is made of some records, and goes from process to process.

    records: how many; batch: the rows that are kept; tally: what became of all; labels, keys: what their reader saw
    ids, sources: (N,) of each row that could be read, whether it is kept or not
    """

    records: int
    batch: pa.RecordBatch
    tally: Tally
    labels: Mapping[tuple[str, bool], int]
    keys: frozenset[str]
    ids: NDArray[np.uint64]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Tokenizing:
    """Makes token ids of the records of a file with these columns."""

    path: str
    columns: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase
    options: DataOptions
    end_ids: tuple[int, ...]

    def reader(self) -> RowReader:
        """One that has seen no row yet. Raises `DataError` for columns of no format."""
        options, ignored = self.options, self.options.ignore_columns or ()
        return reader_of(self.path, self.columns, options.column_map, options.format, ignored)

    @cached_property
    def renderer(self) -> Renderer:
        """Tries the chat template at the first row that needs it."""
        return Renderer(self.tokenizer, self.options.rendering, self.end_ids)

    def __call__(self, records: list[RawRecord]) -> Tokenized:
        reader, tally, rows = self.reader(), Tally(), []
        for record in records:
            try:
                rows.append(reader.row(record))
            except Unfit as reason:
                tally.unfit.append((record.place, reason))
            except Fault as fault:
                tally.faults.add(record.place, fault)
        return Tokenized(
            records=len(records),
            batch=batch_of(fitting(rows, self.renderer, self.options, tally)),
            tally=tally,
            labels=reader.labels,
            keys=frozenset(reader.keys),
            ids=np.array([int(row.id, 16) for row in rows], dtype=np.uint64),
            sources=tuple(row.source for row in rows),
        )


class Seen:
    """What is known of a file when all its rows were read: `load.SeenInFile`."""

    def __init__(self, reader: RowReader):
        self._reader = reader
        self._ids: set[int] = set()  # of 64 bits: a string each would take several times as much
        self._repeated: list[str] = []

    def add(self, some: Tokenized) -> None:
        """The rows that follow."""
        self._reader.labels.update(some.labels)
        self._reader.keys |= some.keys
        for number, source in zip(some.ids.tolist(), some.sources):
            if number in self._ids:
                self._repeated.append(source)
            self._ids.add(number)

    @property
    def format(self) -> str:
        return self._reader.format.name

    @property
    def labels(self) -> Mapping[tuple[str, bool], int]:
        return self._reader.labels

    @property
    def ignored(self) -> tuple[str, ...]:
        return self._reader.unread()

    @property
    def repeated(self) -> tuple[str, ...]:
        return tuple(self._repeated)


def stream_rows(
    path: str,
    file: Path,
    tokenizer: PreTrainedTokenizerBase,
    options: DataOptions,
    end_ids: Iterable[int],
    write: Write,
) -> tuple[Rows, Report]:
    """What `load_rows` gives of a file, its rows in the store that `write` makes of the batches.

    The file is read twice: which columns it has is known when all its rows were seen. Rows are tokenized by several
    processes, and come in the file's order whatever their number. Raises `DataError`, and then nothing is stored.
    """
    count, columns = 0, dict[str, None]()
    for record in stream_raw(path, file):
        columns |= dict.fromkeys(record.values)
        count += 1
    if not count:
        raise DataError(f"{path}: must be at least one row, got an empty file")
    work = Tokenizing(path, tuple(columns), tokenizer, options, tuple(end_ids))
    seen, tally, reports = Seen(work.reader()), Tally(), list[Report]()
    here = options.format.startswith("__main__.")  # a format of the session, which no other process knows
    processes = 1 if here else processes_for(options.processes, ranks())

    def batches() -> Generator[pa.RecordBatch, None, None]:
        records = _some(stream_raw(path, file))
        with tokenizing(path, count) as bar, closing(in_order(work, records, processes)) as made:
            for some in made:
                tally.add(some.tally)
                seen.add(some)
                yield some.batch
                bar.update(some.records)
        reports.append(report_of(path, work.renderer, options, tally, seen))

    with closing(batches()) as made:
        stored = write(made)
    return stored, replace(reports[0], samples=tuple(stored.row(i) for i in sampled(len(stored))))


def _some(records: Iterator[RawRecord]) -> Iterator[list[RawRecord]]:
    """Some at once."""
    while some := list(islice(records, AT_ONCE)):
        yield some
