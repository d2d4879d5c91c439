"""The token view's data: texts and numbers of the shown rows, small enough for a page.

A token's number is the policy's log-odds, in thousandths, as a 16-bit integer: log-prob, probability, log-ratio and
BNF's weight all follow from it, also near probability 1, where the log-prob itself would be rounded to 0.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_bnf.pages.scores import Answer, ShownRow, Snapshot

MOST_TOKENS = 220_000
"""Numbers of a page: tokens times runs, for a page under 5 MB."""
MOST_CHARACTERS = 1_200_000
MOST_OF_AN_ANSWER = 4_000
"""Tokens of an answer that a page shows."""
NOT_SCORED = -32768
_LARGEST = 32767  # thousandths of log-odds: probabilities from 1e-14 to 1 - 1e-14


@dataclass(frozen=True)
class RunScores:
    """A run's snapshots of the shown rows, by moment; `loss`: the name of what it minimised."""

    name: str
    loss: str
    snapshots: dict[str, Snapshot]


def log_odds(logps: Sequence[float | None]) -> NDArray[np.int16]:
    """log(p / (1 - p)) in thousandths, of log-probs (nats); within +-32.767, and `NOT_SCORED` for None."""
    values = np.array([np.nan if value is None else min(value, 0.0) for value in logps], dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = values - np.log(-np.expm1(values))
    known = np.clip(np.nan_to_num(np.rint(1000 * odds), nan=0, posinf=_LARGEST, neginf=-_LARGEST), -_LARGEST, _LARGEST)
    return np.where(np.isnan(values), NOT_SCORED, known).astype("<i2")


def weights(policy: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.float64]:
    """BNF's weight min(1, odds(pi) / odds(ref)) of log-odds in thousandths."""
    return np.exp(np.minimum(0.0, (policy.astype(float) - reference.astype(float)) / 1000))


def fitting(rows: Sequence[ShownRow], runs: int = 1) -> list[int]:
    """Which rows go into a page: all, or as many evenly apart as fit into `MOST_TOKENS` and `MOST_CHARACTERS`."""
    tokens = np.array([sum(min(len(a.pieces), MOST_OF_AN_ANSWER) for a in row.answers) for row in rows])
    sizes = np.array([_characters(row) for row in rows])
    count = len(rows)
    while count > 1:
        kept = [i * len(rows) // count for i in range(count)]
        if runs * tokens[kept].sum() <= MOST_TOKENS and sizes[kept].sum() <= MOST_CHARACTERS:
            return kept
        count = min(count - 1, int(count * 0.95))
    return list(range(count))


def _characters(row: ShownRow) -> int:
    """UTF-8 bytes of its texts."""
    pieces = (piece for answer in row.answers for piece in answer.pieces[:MOST_OF_AN_ANSWER])
    return sum(len(text.encode(errors="replace")) for text in (shorten(row.prompt), *pieces))


def shorten(text: str, most: int = 8000) -> str:
    """The text, without its middle where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n[... {len(text) - most:,} characters ...]\n{text[-most // 2 :]}"


def token_data(rows: Sequence[ShownRow], runs: Sequence[RunScores], moments: Sequence[str]) -> dict[str, Any]:
    """What the page's script reads. All runs have scores of the same `rows`, in the same order."""
    lengths = [
        len(piece.encode("utf-16-le", "surrogatepass")) // 2
        for row in rows
        for answer in row.answers
        for piece in answer.pieces[:MOST_OF_AN_ANSWER]
    ]
    return {
        "rows": [
            {
                "id": row.id,
                "prompt": shorten(row.prompt),
                "answers": [
                    {
                        "label": answer.label,
                        "text": "".join(answer.pieces[:MOST_OF_AN_ANSWER]),
                        "tokens": min(len(answer.pieces), MOST_OF_AN_ANSWER),
                        "left_out": max(0, len(answer.pieces) - MOST_OF_AN_ANSWER),
                    }
                    for answer in row.answers
                ],
            }
            for row in rows
        ],
        "lengths": _base64(np.minimum(lengths, 65535).astype("<u2")),
        "runs": [
            {
                "name": run.name,
                "loss": run.loss,
                "snapshots": [
                    {"name": name, "step": run.snapshots[name].step, "odds": _base64(_odds(rows, run.snapshots[name]))}
                    for name in moments
                    if name in run.snapshots
                ],
            }
            for run in runs
        ],
    }


def _odds(rows: Sequence[ShownRow], snapshot: Snapshot) -> NDArray[np.int16]:
    """Of every shown token; those that are not trained have `NOT_SCORED`."""
    parts = [
        spread(answer, logps)[:MOST_OF_AN_ANSWER]
        for row, own in zip(rows, snapshot.logps, strict=True)
        for answer, logps in zip(row.answers, own, strict=True)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, "<i2")


def spread(answer: Answer, logps: Sequence[float | None]) -> NDArray[np.int16]:
    """The log-odds of the scored tokens at their places among all of the answer's tokens."""
    found = np.full(len(answer.pieces), NOT_SCORED, dtype="<i2")
    found[np.array(answer.scored, dtype=bool)] = log_odds(logps)
    return found


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


_ESCAPED = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element, whatever texts it holds: no `<`, no line separators, and no lone
    surrogates, which no file takes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
