"""A judge's text -> its verdict, by the rules of each benchmark, or the reason why there is none."""

import json
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

MARGINS = {
    "A>>B": 2,
    "A>B": 1,
    "A=B": 0,
    "B=A": 0,
    "B>A": -1,
    "B>>A": -2,
    "A<B": -1,
    "A<<B": -2,
    "B<A": 1,
    "B<<A": 2,
    "A++": 2,
    "A+": 1,
    "B+": -1,
    "B++": -2,
}
"""Verdict -> how much better A is: 2 much, 1 slightly, 0 as good."""
_2024 = frozenset({"A>>B", "A>B", "A=B", "B>A", "B>>A"})
_DOUBLE, _SINGLE = re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]")
_SCORE = re.compile(r'"?score"?\s*:\s*"?\s*(\d+(?:\.\d+)?)')
_CHOICE = re.compile(r'"?choice"?\s*:\s*"?\s*(A\+\+|A\+|A=B|B\+\+|B\+)')


class Verdict(NamedTuple):
    """What a judge said: a label of `MARGINS`, a score as text, or None with the reason."""

    said: str | None
    reason: str | None = None
    again: bool = False


def arena_hard_2024(text: str) -> Verdict:
    """All verdicts in double brackets must be the same one. Without any, the judge is asked once more to finish."""
    said = set(_DOUBLE.findall(text))
    if not said:
        return Verdict(None, "no verdict in the text", again=True)
    if len(said) > 1:
        return Verdict(None, "several different verdicts")
    (label,) = said
    return Verdict(label) if label in _2024 else Verdict(None, "a verdict of another form")


def arena_hard_2025(text: str) -> Verdict:
    """The last verdict in double brackets counts, else the last in single ones."""
    for pattern in (_DOUBLE, _SINGLE):
        said = pattern.findall(text.upper())
        if said:
            return Verdict(said[-1]) if said[-1] in MARGINS else Verdict(None, "a verdict of another form")
    return Verdict(None, "no verdict in the text")


def wildbench_score(text: str) -> Verdict:
    """The JSON's "score", else that field by pattern: a number from 1 to 10."""
    said = _field(text, "score", _SCORE)
    if said is None:
        return Verdict(None, "no score in the text")
    try:
        number = float(said)
    except ValueError:
        return Verdict(None, "a score that is no number")
    return Verdict(f"{number:g}") if 1 <= number <= 10 else Verdict(None, "a score outside of 1 to 10")


def wildbench_choice(text: str) -> Verdict:
    """The JSON's "choice", else that field by pattern: A++, A+, A=B, B+ or B++."""
    said = _field(text, "choice", _CHOICE)
    if said is None:
        return Verdict(None, "no choice in the text")
    return Verdict(said) if said in ("A++", "A+", "A=B", "B+", "B++") else Verdict(None, "a choice of another form")


def preference(first: Sequence[tuple[str, float]] | None, tokens: tuple[str, str]) -> float | None:
    """The probability of the first of two tokens among both; None where neither is among the log-probs."""
    held = {token: math.exp(number) for token, number in first or () if token in tokens}
    total = sum(held.values())
    return held.get(tokens[0], 0.0) / total if total > 0 else None


def _field(text: str, name: str, pattern: re.Pattern[str]) -> str | None:
    """A field of the JSON that the text is or holds; else by pattern."""
    plain = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        value = json.loads(plain)[name]
    except (ValueError, TypeError, KeyError, RecursionError):
        named = pattern.search(text)
        return named[1] if named else None
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else None
