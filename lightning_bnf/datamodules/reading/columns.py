"""Values of a file's columns, checked: numbers, booleans, strings, and what the data say of completions in numbers."""

import math
from collections.abc import Mapping
from typing import Any

from lightning_bnf.datamodules.reading.errors import Fault, shorten

NUMBERS = {"reward": "score", "win_probability": "win_probability", "baseline_mean_logps": "baseline_mean_logps"}
"""What losses may ask of a completion (`Examples.columns`) -> the column; in pairs `_chosen` or `_rejected` follows.

reward: any reward model's score; win_probability: that it beats the policy's own answers, 0 to 1; baseline_mean_logps:
its mean token log-prob under other models, nats a token
"""

SINGLE_COLUMNS = frozenset(NUMBERS.values())
PAIRED_COLUMNS = frozenset(f"{column}_{side}" for column in NUMBERS.values() for side in ("chosen", "rejected"))
SAMPLE_COLUMNS = frozenset({"all_generated_responses", "all_rm_scores"})


def numbers_of(values: Mapping[str, Any], suffix: str = "") -> dict[str, float]:
    """The numbers that a row gives for a completion, by their names in `NUMBERS`. Raises `Fault`."""
    found: dict[str, float] = {}
    for name, column in NUMBERS.items():
        value = number(column + suffix, values.get(column + suffix))
        if value is not None:
            found[name] = value
    wins = found.get("win_probability", 0.0)
    if not 0 <= wins <= 1:
        raise Fault(f"column {'win_probability' + suffix!r} must be a probability, 0 to 1, got {wins:g}")
    return found


def scores_of_samples(values: Mapping[str, Any], chosen: str, rejected: str) -> list[dict[str, float]]:
    """Rewards of chosen and rejected from `all_rm_scores`: by their texts, else the best and the worst of the scores.

    That is how sets with these columns are built: `chosen` and `rejected` are the best and the worst of the samples.
    """
    given = values.get("all_rm_scores")
    if given is None:
        return [{}, {}]
    scores = [number("all_rm_scores", score) for score in typed("all_rm_scores", given, (list,), "a list of numbers")]
    if len(scores) < 2 or any(score is None for score in scores):
        raise Fault(f"column 'all_rm_scores' must be two numbers or more, got {shorten(given)}")
    known = [score for score in scores if score is not None]
    texts = values.get("all_generated_responses")
    by_text = dict(zip(texts, known)) if isinstance(texts, list) and len(texts) == len(known) else {}
    return [{"reward": by_text.get(chosen, max(known))}, {"reward": by_text.get(rejected, min(known))}]


def number(column: str, value: Any) -> float | None:
    """A finite number, or None where there is none. Raises `Fault`."""
    if value is None:
        return None
    found = float(typed(column, value, (int, float), "a finite number"))
    if not math.isfinite(found):
        raise Fault(f"column {column!r} must be a finite number, got {value}")
    return found


def token_count(column: str, value: Any) -> int | None:
    """A whole number of tokens, or None where there is none. Raises `Fault`."""
    if value is None:
        return None
    if typed(column, value, (int,), "a whole number of tokens, 1 or more") < 1:
        raise Fault(f"column {column!r} must be a whole number of tokens, 1 or more, got {value}")
    return value


def typed(column: str, value: Any, types: tuple[type, ...], accepted: str) -> Any:
    """The value, if it is of one of the types; a boolean is no number. Raises `Fault`."""
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise Fault(f"column {column!r} must be {accepted}, got {shorten(value)}")
    return value
