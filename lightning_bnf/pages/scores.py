"""What a page shows of single tokens, as files of the run folder: the rows, and their log-probs at three moments.

report/run.json      what was trained on what, and what the page cost
report/rows.json     the rows that are shown, their answers as the texts of their tokens
report/start.json    token log-probs (nats) before the first step, which are the reference's; middle.json, end.json
report/steps.json    seconds, tokens and memory of each step
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.refusal import Refusal

FOLDER = "report"
MOMENTS = ("start", "middle", "end")
_DIGITS = 6  # significant ones of a log-prob: float32 has hardly more


@dataclass(frozen=True)
class Answer:
    """A completion: label +1 or -1, the text of each token, and which of the tokens are trained, and so scored."""

    label: int
    pieces: Sequence[str]
    scored: Sequence[bool]


@dataclass(frozen=True)
class ShownRow:
    """A row of the page; `key` (hex digits) is made of the token ids of prompt and answers: equal keys, equal rows."""

    key: str
    id: str
    prompt: str
    answers: Sequence[Answer]


Logps = Sequence[Sequence[Sequence[float]]]
"""Token log-probs (nats): for each row, for each of its answers, for each scored token."""


@dataclass(frozen=True)
class Snapshot:
    """The policy's token log-probs after `step` optimizer steps."""

    step: int
    logps: Logps


def write_rows(run: Path, rows: Sequence[ShownRow]) -> None:
    """Write the rows that are shown; snapshots that are there, of other rows, are removed."""
    for moment in MOMENTS:
        (run / FOLDER / f"{moment}.json").unlink(missing_ok=True)
    _write(run, "rows", [asdict(row) for row in rows])


def read_rows(run: Path) -> list[ShownRow]:
    """The rows that are shown; none where there is no such file."""
    return [
        ShownRow(row["key"], row["id"], row["prompt"], [Answer(**answer) for answer in row["answers"]])
        for row in _read(run, "rows") or []
    ]


def write_snapshot(run: Path, moment: str, snapshot: Snapshot) -> None:
    """Write the log-probs of a moment, to six significant digits."""
    logps = [[[_rounded(value) for value in answer] for answer in row] for row in snapshot.logps]
    _write(run, moment, {"step": snapshot.step, "logps": logps})


def read_snapshot(run: Path, moment: str) -> Snapshot | None:
    """The log-probs of a moment; None where there is no such file."""
    found = _read(run, moment)
    return None if found is None else Snapshot(found["step"], found["logps"])


def write_about(run: Path, about: Mapping[str, Any]) -> None:
    """Write what the run is."""
    _write(run, "run", dict(about))


def read_about(run: Path) -> dict[str, Any]:
    """What the run is; empty where there is no such file."""
    return dict(_read(run, "run") or {})


def write_steps(run: Path, steps: Mapping[str, Sequence[float]]) -> None:
    """Write columns with a number for each step."""
    _write(run, "steps", {name: list(values) for name, values in steps.items()})


def read_steps(run: Path) -> dict[str, list[float]]:
    """The columns; empty where there is no such file."""
    return dict(_read(run, "steps") or {})


def has_snapshot(run: Path, moment: str) -> bool:
    """Whether the log-probs of a moment are there."""
    return (run / FOLDER / f"{moment}.json").is_file()


def _rounded(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _write(run: Path, name: str, value: Any) -> None:
    # escaped to ASCII: texts may hold lone surrogates, which are no UTF-8
    write_text(run / FOLDER / f"{name}.json", json.dumps(value, separators=(",", ":")) + "\n")


def _read(run: Path, name: str) -> Any:
    path = run / FOLDER / f"{name}.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refusal(f"{path} must be JSON as a run writes it, got {error}") from None
