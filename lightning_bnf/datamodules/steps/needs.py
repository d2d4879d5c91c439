"""Whether rows have what a loss declares that it needs: known before any model is loaded."""

from collections.abc import Sequence

from lightning_bnf.datamodules.reading.columns import NUMBERS
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import RowView, all_arrays
from lightning_bnf.losses.base import Loss


def check_rows(rows: Sequence[TokenizedRow], loss: Loss) -> None:
    """Refuse (`DataError`) rows that the loss cannot be computed on, naming the first one."""
    for i, row in enumerate(all_arrays(rows)):
        lacks = loss.needs_pairs and not row.pairs
        if lacks or loss.needs_groups or loss.needs_columns or not len(row.length):
            _check_row(rows[i], loss)  # decoded as a whole, which takes long: the sentence needs it


def _check_row(row: TokenizedRow, loss: Loss) -> None:
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
    _check_columns(row, loss)


def check_labels(rows: Sequence[TokenizedRow], loss: Loss) -> None:
    """Refuse (`DataError`) training rows whose labels teach the loss nothing."""
    name = type(loss).__name__
    labels = {label for row in all_arrays(rows) for label in row.label.tolist()}
    if not labels & set(loss.labels):
        raise DataError(f"data.train: labels must be of {loss.labels} for {name} to learn from, got {labels}")
    if loss.needs_both_labels and labels != {1, -1}:
        raise DataError(
            f"data.train: labels must be both +1 and -1 for {name}, which compares preferred with dispreferred "
            f"completions, got {labels.pop():+d} alone"
        )


def _check_columns(row: TokenizedRow, loss: Loss) -> None:
    for name in loss.needs_columns:
        if any(name not in completion.numbers for completion in row.completions if completion.label in loss.labels):
            column = NUMBERS[name]
            columns = f"{column}_chosen and {column}_rejected" if row.pairs else column
            raise DataError(
                f"{row.source}: must be a row with {columns} for {type(loss).__name__}, which needs the {name} of "
                "every completion it learns from, got none; other names through data.options.column_map"
            )


def usable_rows(rows: RowView, loss: Loss, allow_drop: float) -> tuple[RowView, str | None]:
    """The rows without those that the loss leaves out by its own rule, and a sentence that counts them.

    Raises `DataError` where that is more than the share `allow_drop`.
    """
    if not loss.needs_ordered_rewards:
        return rows, None
    kept = rows.where(_ordered)
    dropped = len(rows) - len(kept)
    if not dropped:
        return rows, None
    rule = f"{type(loss).__name__} needs chosen completions scored above the rejected ones"
    if dropped > allow_drop * len(rows) or not kept:
        first = next(row.source for row in rows if not _ordered(row))
        raise DataError(
            f"{first}: dropped rows must be at most allow_drop ({allow_drop:g}) of all, got {dropped} of {len(rows)}, "
            f"since {rule}: raise allow_drop, or mend the scores"
        )
    return kept, f"{dropped} of {len(rows)} rows dropped: {rule}"


def _ordered(row: TokenizedRow) -> bool:
    """Whether each preferred completion's reward is above each dispreferred one's; also where one is not given."""
    rewards = {
        label: [c.numbers["reward"] for c in row.completions if c.label == label and "reward" in c.numbers]
        for label in (1, -1)
    }
    return not (rewards[1] and rewards[-1]) or min(rewards[1]) > max(rewards[-1])
