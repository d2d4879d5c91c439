"""Records of a file as token ids: what each of several processes does, in which torch is not imported."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.errors import Fault, Unfit
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.records import RowReader, opposite, reader_of
from lightning_bnf.datamodules.reading.tables import RawRecord
from lightning_bnf.datamodules.tokens.load import Tally, fitting
from lightning_bnf.datamodules.tokens.record_batches import batch_of
from lightning_bnf.datamodules.tokens.renderer import Renderer


@dataclass(frozen=True)
class Tokenized:
    """What is made of some records, and goes from process to process.

    records: how many; batch: the rows that are kept; tally: what became of all
    labels, votes, keys: what their reader saw
    ids, opposites, sources: (N,) of each row that could be read, whether it is kept or not, as `Repeats.add` takes them
    """

    records: int
    batch: pa.RecordBatch
    tally: Tally
    labels: Mapping[tuple[str, bool], int]
    votes: Mapping[str, str]
    keys: frozenset[str]
    ids: NDArray[np.uint64]
    opposites: NDArray[np.uint64]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Tokenizing:
    """Makes token ids of the records of a file with these columns, each with the first value that it has."""

    path: str
    columns: Mapping[str, Any]
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
            votes=reader.votes,
            keys=frozenset(reader.keys),
            ids=np.array([int(row.id, 16) for row in rows], dtype=np.uint64),
            opposites=np.array([opposite(row) for row in rows], dtype=np.uint64),
            sources=tuple(row.source for row in rows),
        )
