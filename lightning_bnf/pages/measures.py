"""Numbers of the shown rows at a moment, from their token log-probs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lightning_bnf.pages.scores import ShownRow, Snapshot
from lightning_bnf.pages.tokens import log_odds, weights


@dataclass(frozen=True)
class Measures:
    """Means over the rows; log-probs and their changes since the start are nats a token.

    chosen, rejected: log-prob; margin: of chosen - rejected, and accuracy the share of rows where it has grown, over
    rows with both; weight_*: BNF's weight; moved: the absolute log-ratio to the start of all answers' tokens. None
    where there is nothing to take a mean of, or no start.
    """

    chosen: float | None
    rejected: float | None
    margin: float | None
    chosen_shift: float | None
    rejected_shift: float | None
    margin_shift: float | None
    accuracy: float | None
    chosen_weight: float | None
    rejected_weight: float | None
    moved: float | None


def measures(rows: Sequence[ShownRow], now: Snapshot, start: Snapshot | None) -> Measures:
    """Of all rows; an answer counts once whatever its length, a row's margin is of its answers' means."""
    value = {label: _row_means(rows, now, label) for label in (1, -1)}
    before = {label: _row_means(rows, start, label) if start else [None] * len(rows) for label in (1, -1)}
    shift = {label: [_minus(a, b) for a, b in zip(value[label], before[label])] for label in (1, -1)}
    margins = [_minus(a, b) for a, b in zip(value[1], value[-1])]
    gained = [_minus(a, b) for a, b in zip(shift[1], shift[-1])]
    known = [one for one in gained if one is not None]
    return Measures(
        chosen=_mean(value[1]),
        rejected=_mean(value[-1]),
        margin=_mean(margins),
        chosen_shift=_mean(shift[1]),
        rejected_shift=_mean(shift[-1]),
        margin_shift=_mean(gained),
        accuracy=fmean(one > 0 for one in known) if known else None,
        chosen_weight=_mean(_weights(rows, now, start, 1)) if start else None,
        rejected_weight=_mean(_weights(rows, now, start, -1)) if start else None,
        moved=_mean(_moves(now, start)) if start else None,
    )


def _row_means(rows: Sequence[ShownRow], snapshot: Snapshot, label: int) -> list[float | None]:
    """Of each row the mean token log-prob of its answers with a label."""
    return [
        _mean([_mean(logps) for answer, logps in zip(row.answers, own) if answer.label == label])
        for row, own in zip(rows, snapshot.logps)
    ]


def _weights(rows: Sequence[ShownRow], now: Snapshot, start: Snapshot, label: int) -> list[float]:
    """Of each answer with a label the mean of BNF's weight."""
    return [
        float(weights(log_odds(policy), log_odds(reference)).mean())
        for row, own, first in zip(rows, now.logps, start.logps)
        for answer, policy, reference in zip(row.answers, own, first)
        if answer.label == label and len(policy)
    ]


def _moves(now: Snapshot, start: Snapshot) -> list[float]:
    """Of each answer the mean absolute log-ratio of a token."""
    pairs = (zip(own, first) for row, before in zip(now.logps, start.logps) for own, first in zip(row, before))
    found = ([abs(a - b) for a, b in pair if a is not None and b is not None] for pair in pairs)
    return [fmean(values) for values in found if values]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(known) if known else None


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
