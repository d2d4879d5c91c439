"""Before and after training on the same prompts and pairs: one table, one JSON, side-by-side samples."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_bnf.evaluation.pass_rates import (
    Rate,
    Record,
    VerifiedPrompt,
    pass_rate_changes,
)
from lightning_bnf.evaluation.statistics.intervals import paired_bootstrap
from lightning_bnf.results.markdown import markdown_table


@dataclass(frozen=True)
class Snapshot:
    """What a policy does at one moment: verified completions, and mean token log-probs of test pairs, row by row."""

    records: list[Record]
    chosen: list[float]
    rejected: list[float]


@dataclass(frozen=True)
class Line:
    """One measure before and after. `low` to `high`: 95 % interval of the change, a paired bootstrap."""

    measure: str
    n: int
    before: float
    after: float
    change: float
    low: float
    high: float


def choose(prompts: Sequence[VerifiedPrompt], trained: int | None, kept_out: int | None) -> list[VerifiedPrompt]:
    """The first so many prompts of the trained and of the kept-out families, taking the families in turn."""
    chosen: list[VerifiedPrompt] = []
    for group, limit in ((False, trained), (True, kept_out)):
        families: dict[str, list[VerifiedPrompt]] = {}
        for prompt in prompts:
            if prompt.kept_out == group:
                families.setdefault(prompt.family, []).append(prompt)
        longest = max(map(len, families.values()), default=0)
        in_turn = [family[i] for i in range(longest) for family in families.values() if i < len(family)]
        chosen += in_turn[:limit]
    return chosen


def compare(before: Snapshot, after: Snapshot) -> list[Line]:
    """All measures that both snapshots have: pass rates by group, log-probs of chosen and rejected, lengths."""
    lines = [
        Line(f"pass rate, {c.group} families, {c.decoding}", c.n, c.before, c.after, c.change, c.low, c.high)
        for c in pass_rate_changes(before.records, after.records)
        if c.group in ("trained", "kept-out")
    ]
    for side in ("chosen", "rejected"):
        lines += _line(f"mean log-prob of {side} (nats a token)", getattr(before, side), getattr(after, side))
    for group in ("trained", "kept-out"):
        lengths = [
            [record.length for record in snapshot.records if record.groups[0] == group and record.decoding == "sampled"]
            for snapshot in (before, after)
        ]
        lines += _line(f"response length, {group} families, sampled (tokens)", *lengths)
    return lines


def _line(measure: str, before: Sequence[float], after: Sequence[float]) -> list[Line]:
    if not before:
        return []
    change = np.array(after, dtype=float) - np.array(before, dtype=float)
    low, high = paired_bootstrap(change)
    return [Line(measure, len(before), float(np.mean(before)), float(np.mean(after)), float(change.mean()), low, high)]


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table, aligned for reading on a terminal too."""
    rows: list[Sequence[str]] = [("", "n", "before", "after", "change", "95 % interval")]
    for line in lines:
        digits = 1 if line.measure.startswith("response") else 2
        before, after = (f"{value:.{digits}f}" for value in (line.before, line.after))
        change, low, high = (f"{value:+.{digits}f}" for value in (line.change, line.low, line.high))
        rows.append((line.measure, str(line.n), before, after, change, f"{low} to {high}"))
    return markdown_table(*rows, padded=True)


def rates_table(rates: Sequence[Rate]) -> str:
    """Pass rates of one policy as a Markdown table."""
    rows: list[Sequence[str]] = [("family", "decoding", "n", "pass rate", "95 % interval", "tokens")]
    for rate in rates:
        interval = f"{rate.low:.2f} to {rate.high:.2f}"
        rows.append((rate.group, rate.decoding, str(rate.n), f"{rate.rate:.2f}", interval, f"{rate.length:.1f}"))
    return markdown_table(*rows, padded=True)


def falls_of_kept_out(lines: Sequence[Line]) -> dict[str, float]:
    """How much pass rates of kept-out families may have fallen at most (>= 0), by measure: the upper end of the 95 %
    interval of the fall."""
    return {line.measure: max(0.0, -line.low) for line in lines if line.measure.startswith("pass rate, kept-out")}


def as_json(lines: Sequence[Line], settings: dict[str, Any]) -> str:
    """The lines and what they were made with."""
    return json.dumps({"settings": settings, "lines": [dataclasses.asdict(line) for line in lines]}, indent=1)


def samples(texts: Mapping[str, str], before: Snapshot, after: Snapshot, count: int = 3) -> list[str]:
    """The first prompts (`texts`: by prompt_id) with their sampled completions before and after, for a terminal."""
    both = [(old, new) for old, new in zip(before.records, after.records) if old.decoding == "sampled"]
    return [f"{texts[old.prompt_id]!r}\n  before: {old.text!r}\n  after:  {new.text!r}\n" for old, new in both[:count]]


def side_by_side(texts: Mapping[str, str], before: Snapshot, after: Snapshot) -> str:
    """JSONL: each prompt's text (`texts`: by prompt_id) with both snapshots' completions."""
    lines = [
        json.dumps(
            {
                "prompt_id": old.prompt_id,
                "family": old.groups[1],
                "decoding": old.decoding,
                "prompt": texts[old.prompt_id],
                "before": old.text,
                "before_passed": old.passed,
                "after": new.text,
                "after_passed": new.passed,
            },
            ensure_ascii=False,
        )
        for old, new in zip(before.records, after.records)
    ]
    return "\n".join(lines) + "\n"
