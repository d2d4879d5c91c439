"""Values of a file's columns, checked: numbers, booleans, strings, and what the data say of completions in numbers."""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from lightning_bnf.datamodules.reading.errors import UNLABELLED, DataError, Fault, Unfit, UnknownWord, shorten
from lightning_bnf.datamodules.reading.messages import encodable, looks_like_messages

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
    named = isinstance(texts, list) and len(texts) == len(known) and all(isinstance(text, str) for text in texts)
    by_text = dict(zip(texts, known)) if isinstance(texts, list) and named else {}
    return [{"reward": by_text.get(chosen, max(known))}, {"reward": by_text.get(rejected, min(known))}]


def number(column: str, value: Any) -> float | None:
    """A finite number, or None where there is none. Raises `Fault`."""
    if value is None:
        return None
    given = typed(column, value, (int, float), "a finite number")
    try:
        found = float(given)
    except OverflowError:  # a whole number beyond a float's range
        found = math.inf
    if not math.isfinite(found):
        raise Fault(f"column {column!r} must be a finite number, got {shorten(given)}")
    return found


_PREFERRED = (
    *("true", "1", "+1", "1.0", "yes"),
    *("up", "thumbs_up", "chosen", "desirable", "preferred", "good", "positive"),
)
_DISPREFERRED = (
    *("false", "0", "-1", "0.0", "-1.0", "no"),
    *("down", "thumbs_down", "rejected", "undesirable", "dispreferred", "bad", "negative"),
)


def preferred(column: str, value: Any) -> bool:
    """A label: whether a completion is preferred, by true and false or the words that stand for them. Raises
    `Fault`, and `Unfit` for a blank one."""
    word = _word(value)
    if not word:
        raise Unfit(UNLABELLED, f"column {column!r} must be true (preferred) or false, got {shorten(value)}: no label")
    if not isinstance(value, (bool, int, float, str)) or word not in (*_PREFERRED, *_DISPREFERRED):
        raise UnknownWord(
            f"column {column!r} must be true (preferred) or false (dispreferred), 1 or 0, +1 or -1, yes or no, up or"
            " down, chosen or rejected, desirable or undesirable, good or bad, positive or negative (rewrite a column"
            " of other words to one of these)",
            shorten(value),
        )
    return word in _PREFERRED


def _word(label: Any) -> str:
    return re.sub(r"(?<=\w)[ -](?=\w)", "_", str(label)[:20].strip().lower())


_VOTES = {"0": "0", "0.0": "0", "-1": "-1", "-1.0": "-1"}


def vote(label: Any) -> str | None:
    """Which of 0 and -1 a label is: each alone stands for dispreferred, but where both occur 0 may be no vote."""
    return _VOTES.get(_word(label))


def check_votes(path: str, first: Mapping[str, str]) -> None:
    """Refuse (`DataError`) a file that holds both 0 and -1 as labels. `first`: from each to where it stands first."""
    if len(first) > 1:
        raise DataError(
            f"{path}: column 'label' must hold either 0 or -1 for dispreferred, got both: 0 (first at {first['0']}) and"
            f" -1 (first at {first['-1']}); where 0 means that there was no vote, drop these rows, and where it means"
            " dispreferred, write true and false"
        )


def typed_values(values: Mapping[str, str]) -> dict[str, Any]:
    """Cells of a file that holds strings alone, such as CSV, as what they stand for: numbers, true and false, lists in
    JSON where the column may hold a list. Texts stay as they are. Raises `Fault`."""
    return {column: _CELLS.get(column, _text_or_messages)(column, cell) for column, cell in values.items()}


_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_WHOLE = re.compile(r"\s*[+-]?\d+(\.0+)?\s*")
_TRUE, _FALSE = ("true", "1", "+1", "1.0"), ("false", "0", "-1", "0.0", "-1.0")


def _cell_of_number(column: str, cell: str) -> float:
    if not _NUMBER.fullmatch(cell):
        raise Fault(f"column {column!r} must be a finite number, with a point for decimals, got {shorten(cell)}")
    return float(cell)


def _cell_of_count(column: str, cell: str) -> int:
    if not _WHOLE.fullmatch(cell) or len(cell) > 80:
        raise Fault(f"column {column!r} must be a whole number, got {shorten(cell)}")
    return int(cell.partition(".")[0])


def _cell_of_truth(column: str, cell: str) -> bool:
    word = cell.strip().lower()
    if word not in (*_TRUE, *_FALSE):
        raise Fault(f"column {column!r} must be true or false (or 1 or 0, +1 or -1), got {shorten(cell)}")
    return word in _TRUE


def _cell_of_list(column: str, cell: str) -> list[Any]:
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise Fault(f"column {column!r} must be a list in JSON, got {shorten(cell)}")
    return found


def _text_or_messages(column: str, cell: str) -> Any:
    return _cell_of_list(column, cell) if looks_like_messages(cell) else cell


_CELLS: dict[str, Callable[[str, str], Any]] = {
    **dict.fromkeys(SINGLE_COLUMNS | PAIRED_COLUMNS, _cell_of_number),
    **dict.fromkeys(SAMPLE_COLUMNS | {"samples"}, _cell_of_list),
    "kept_out": _cell_of_truth,
    "max_new_tokens": _cell_of_count,
}


_MOST_TOKENS = 2**31 - 1


def token_count(column: str, value: Any) -> int | None:
    """A whole number of tokens, or None where there is none. Raises `Fault`."""
    if value is None:
        return None
    if not 1 <= typed(column, value, (int,), "a whole number of tokens, 1 or more") <= _MOST_TOKENS:
        raise Fault(f"column {column!r} must be a whole number of tokens, 1 to {_MOST_TOKENS}, got {shorten(value)}")
    return value


def line(column: str, value: Any, types: tuple[type, ...] = (str,), accepted: str = "a string") -> str | None:
    """A short text that is printed and stored, or None where there is none. Raises `Fault`."""
    if value is None:
        return None
    text = str(typed(column, value, types, accepted))
    if not encodable(text):
        raise Fault(f"column {column!r} must be text that can be written as UTF-8, got {shorten(value)}")
    return text


def typed(column: str, value: Any, types: tuple[type, ...], accepted: str) -> Any:
    """The value, if it is of one of the types; a boolean is no number. Raises `Fault`."""
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise Fault(f"column {column!r} must be {accepted}, got {shorten(value)}")
    return value
