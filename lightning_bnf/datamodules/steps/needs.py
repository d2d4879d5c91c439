"""Whether rows have what a loss declares that it needs: known before any model is loaded."""

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightning_bnf.datamodules.reading.columns import NUMBERS
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.formats import format_of
from lightning_bnf.datamodules.tokens.columns import Bools, Ragged, reduced
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import RowView, as_rows
from lightning_bnf.losses.base import Loss


def check_rows(rows: Sequence[TokenizedRow], loss: Loss) -> None:
    """Refuse (`DataError`) rows that the loss cannot be computed on, naming the first one."""
    held = as_rows(rows)
    columns = held.columns
    lacks = columns.completions == 0
    lacks |= loss.needs_pairs & ~columns.pairs
    lacks |= loss.needs_groups & ~columns.groups
    for name in loss.needs_columns:
        missing = np.isnan(held.numbers(name)) & columns.has(loss.labels)
        lacks |= Ragged(missing.astype(np.int64), columns.first).sums() > 0
    for i in np.flatnonzero(lacks)[:1].tolist():
        _refuse_row(rows[i], loss)


def _refuse_row(row: TokenizedRow, loss: Loss) -> NoReturn:
    name = type(loss).__name__
    if not row.completions:
        raise DataError(
            f"{row.source}: must be a row with completions for {name}, got a prompt alone; answers in columns of"
            " other names are read with --data.options.column_map, such as '{response: completion}'"
        )
    if loss.needs_pairs and not row.pairs:
        raise DataError(
            f"{row.source}: must be a pair (columns chosen and rejected) for {name}, got {row.format}; a loss for "
            "unpaired data, such as BNF, takes it"
        )
    if loss.needs_groups and not row.groups:
        raise DataError(
            f"{row.source}: must be grouped for {name} (columns prompt, samples and rejected), got {row.format}"
        )
    for name in loss.needs_columns:
        if any(name not in completion.numbers for completion in row.completions if completion.label in loss.labels):
            column = NUMBERS[name]
            columns = f"{column}_chosen and {column}_rejected" if row.pairs else column
            raise DataError(
                f"{row.source}: must be a row with {columns} for {type(loss).__name__}, which needs the {name} of "
                "every completion it learns from, got none; other names through data.options.column_map"
            )
    raise AssertionError(f"{row.source} has all that {name} needs")


def check_labels(rows: Sequence[TokenizedRow], loss: Loss) -> None:
    """Refuse (`DataError`) training rows whose labels teach the loss nothing."""
    name = type(loss).__name__
    labels = set(np.unique(as_rows(rows).columns.label).tolist())
    if not labels & set(loss.labels):
        raise DataError(f"data.train: labels must be of {loss.labels} for {name} to learn from, got {labels}")
    if loss.needs_both_labels and labels != {1, -1}:
        raise DataError(
            f"data.train: labels must be both +1 and -1 for {name}, which compares preferred with dispreferred "
            f"completions, got {labels.pop():+d} alone"
        )


def label_sentences(rows: RowView, loss: Loss) -> list[str]:
    """How many training rows of single answers have either label, and which of them the loss will miss; nothing where
    no format of theirs has labels."""
    formats = rows.values("format")
    names = [name for name in formats.unique().to_pylist() if "label" in format_of(name.decode()).columns()]
    if not names:
        return []
    labels = rows.columns.label
    labelled = pc.is_in(formats, value_set=pa.array(names, pa.large_binary())).to_numpy()
    counted = labels[np.repeat(labelled, rows.columns.completions)]
    told = [f"labels of single answers: {(counted == 1).sum():,} +1, {(counted == -1).sum():,} -1"]
    missing = [label for label in loss.labels if label not in labels]
    if missing and len(missing) < len(loss.labels):
        given, name = "preferred" if -1 in missing else "dispreferred", type(loss).__name__
        told.append(f"WARNING: no answer is labelled {missing[0]:+d}, and {name} trains on {given} ones alone")
    return told


def usable_rows(rows: RowView, loss: Loss, allow_drop: float) -> tuple[RowView, str | None]:
    """The rows without those that the loss leaves out by its own rule, and a sentence that counts them.

    Raises `DataError` where that is more than the share `allow_drop`.
    """
    if not loss.needs_ordered_rewards:
        return rows, None
    ordered = _ordered(rows)
    kept = rows.only(ordered)
    dropped = len(rows) - len(kept)
    if not dropped:
        return rows, None
    rule = f"{type(loss).__name__} needs chosen completions scored above the rejected ones"
    if dropped > allow_drop * len(rows) or not kept:
        first = rows.source(int(ordered.argmin()))
        raise DataError(
            f"{first}: dropped rows must be at most allow_drop ({allow_drop:g}) of all, got {dropped} of {len(rows)}, "
            f"since {rule}: raise allow_drop, or mend the scores"
        )
    return kept, f"{dropped} of {len(rows)} rows dropped: {rule}"


def _ordered(rows: RowView) -> Bools:
    """(N,) whether each preferred completion's reward is above each dispreferred one's; also where one is not given."""
    columns, reward = rows.columns, rows.numbers("reward")
    worst = np.where((columns.label == 1) & ~np.isnan(reward), reward, np.inf)
    best = np.where((columns.label == -1) & ~np.isnan(reward), reward, -np.inf)
    lowest = reduced(np.minimum.reduceat, worst, columns.first, np.inf)
    return lowest > reduced(np.maximum.reduceat, best, columns.first, -np.inf)
