"""Large files: read, checked and tokenized row by row into the store, so that memory does not grow with them."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.columns import check_votes
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.files import stream_raw
from lightning_bnf.datamodules.reading.formats import only_here
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.records import Repeats, RowReader
from lightning_bnf.datamodules.reading.tables import RawRecord, add_columns
from lightning_bnf.datamodules.tokens.load import AT_ONCE, Tally, report_of, sampled, tokenizing
from lightning_bnf.datamodules.tokens.report import Report
from lightning_bnf.datamodules.tokens.rows import Rows
from lightning_bnf.datamodules.tokens.tokenizing import Tokenized, Tokenizing
from lightning_bnf.runtime.distributed import ranks
from lightning_bnf.runtime.pools import in_order, processes_for

Write = Callable[[Iterator[pa.RecordBatch]], Rows]


class Seen:
    """What is known of a file when all its rows were read: `load.SeenInFile`."""

    def __init__(self, reader: RowReader):
        self._reader = reader
        self.votes: dict[str, str] = {}  # as `RowReader.votes`
        self._repeats = Repeats()

    def add(self, some: Tokenized) -> None:
        """The rows that follow."""
        self._reader.labels.update(some.labels)
        self._reader.keys |= some.keys
        self.votes = {**some.votes, **self.votes}
        for source, number, opposite in zip(some.sources, some.ids.tolist(), some.opposites.tolist()):
            self._repeats.add(source, number, opposite)

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
        return tuple(self._repeats.repeated)

    @property
    def contradicted(self) -> tuple[str, ...]:
        return tuple(self._repeats.contradicted)


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
    count, columns = 0, dict[str, Any]()
    for record in stream_raw(path, file):
        add_columns(columns, record)
        count += 1
    if not count:
        raise DataError(f"{path}: must be at least one row, got an empty file")
    work = Tokenizing(path, columns, tokenizer, options, tuple(end_ids))
    seen, tally, reports = Seen(work.reader()), Tally(), list[Report]()
    here = options.kind is not None and only_here(options.kind)
    processes = 1 if here else processes_for(options.processes, ranks())

    def batches() -> Generator[pa.RecordBatch, None, None]:
        records = _some(stream_raw(path, file))
        with tokenizing(path, count) as bar, closing(in_order(work, records, processes)) as made:
            for some in made:
                tally.add(some.tally)
                seen.add(some)
                yield some.batch
                bar.update(some.records)
        tally.faults.raise_if_any()
        check_votes(path, seen.votes)
        reports.append(report_of(path, work.renderer, options, tally, seen))

    with closing(batches()) as made:
        stored = write(made)
    return stored, replace(reports[0], samples=tuple(stored.row(i) for i in sampled(len(stored))))


def _some(records: Iterator[RawRecord]) -> Iterator[list[RawRecord]]:
    """Some at once."""
    while some := list(islice(records, AT_ONCE)):
        yield some
