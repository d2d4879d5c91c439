"""Which of our columns and formats a file's columns are: renamed by the user, misspelled, or known from elsewhere."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lightning_bnf.datamodules.reading.errors import DataError, nearest
from lightning_bnf.datamodules.reading.formats import FORMATS, PROMPT_PARTS, Format, Prompt, format_of
from lightning_bnf.datamodules.reading.messages import looks_like_messages

_ALIKE = 0.85  # of 1: `choosen`, `promt`, `labels` are above it

_NAME = 3  # characters, of which a text has more

_ELSEWHERE: dict[str, tuple[str, ...]] = {
    "prompt": ("instruction", "question", "query", "prompt_text", "user", "user_prompt", "user_input", "problem"),
    "chosen": (
        "better",
        "best",
        "preferred",
        "preferred_response",
        "winner",
        "winning",
        "win",
        "positive",
        "pos",
        "good",
        "accepted",
        "chosen_response",
        "response_chosen",
        "answer_chosen",
        "chosen_answer",
        "better_response",
        "best_response",
        "best_answer",
        "better_answer",
        "good_answer",
        "y_w",
    ),
    "rejected": (
        "worse",
        "worst",
        "dispreferred",
        "dispreferred_response",
        "non_preferred",
        "loser",
        "losing",
        "lose",
        "negative",
        "neg",
        "bad",
        "rejected_response",
        "response_rejected",
        "answer_rejected",
        "rejected_answer",
        "worse_response",
        "worst_response",
        "worst_answer",
        "worse_answer",
        "bad_answer",
        "y_l",
    ),
    "completion": ("response", "answer", "output", "reply", "target", "completion_text"),
    "messages": ("dialogue", "dialog", "chat", "turns"),
    "label": ("is_good", "is_preferred", "thumbs_up", "liked"),
}
"""Our column -> what other sets call it, the most telling first; suggested, never taken for granted."""


def map_columns(
    path: str, columns: Collection[str], column_map: Mapping[str, str], wanted: str = "auto"
) -> dict[str, str]:
    """From each column of the file to our name for it. `column_map` is from the file's name to ours."""
    known = known_columns(wanted)
    absent = [theirs for theirs in column_map if theirs not in columns]
    reverse = {ours: theirs for theirs, ours in column_map.items()}
    if (absent or not set(reverse) <= known) and set(column_map) <= known and set(reverse) <= set(columns):
        raise DataError(
            f"{path}: column_map must be from the file's names to ours, {_written(reverse)}, got {_written(column_map)}"
        )
    for theirs, ours in column_map.items():
        if ours not in known:
            near = nearest(ours, known)
            hint = f"; did you mean {near!r}?" if near else f", one of {', '.join(sorted(known))}"
            raise DataError(f"{path}: column_map must rename to a column that is read, got {ours!r}{hint}")
        if theirs not in columns:
            near = nearest(theirs, columns)
            hint = f"; did you mean {near!r}?" if near else f"; its columns are: {', '.join(sorted(columns))}"
            raise DataError(f"{path}: column_map takes {ours!r} from {theirs!r}, which the file does not have{hint}")
    if len(reverse) < len(column_map):
        twice = sorted({ours for ours in column_map.values() if [*column_map.values()].count(ours) > 1})
        raise DataError(f"{path}: column_map must rename columns to different ones, got {', '.join(twice)} twice")
    # A column whose own name was given to another one keeps its content under a name that nothing reads.
    return {
        column: column_map.get(column, column if column not in reverse else f"{column} (replaced by column_map)")
        for column in columns
    }


def detect_format(
    path: str,
    columns: Mapping[str, Any],
    wanted: str = "auto",
    ignore: Sequence[str] = (),
    column_map: Mapping[str, str] | None = None,
) -> Format:
    """The format of a file with `columns` (our names, each with the first value that it has); `wanted` may name one.
    Misspelled columns are refused. A map that is suggested adds to `column_map`."""
    given = column_map or {}
    read = {column: value for column, value in columns.items() if column not in ignore}
    misspelled = _misspelled(read, wanted)
    if misspelled:
        guesses = ", ".join(f"unknown column {theirs!r}; did you mean {ours!r}?" for theirs, ours in misspelled.items())
        raise DataError(
            f"{path}: {guesses} If so, {_to_add({**given, **misspelled})}; if not, list it under ignore_columns"
        )
    candidates = _candidates(wanted)
    matching = next((known for known in candidates if known.matches(read)), None)
    if matching is None:
        accepted = ", ".join(f"{known.sentence()} ({known.name})" for known in candidates)
        names, suggested = ", ".join(sorted(columns)), _suggested(read, candidates)
        if suggested:
            pasted = _to_add({**given, **suggested})
            told = f"match no format: if they mean the same, {pasted}; else they must be {accepted}"
        else:
            told = (
                f"{_misfit(read, wanted)}; they must be {accepted}; other names through {_example(read, wanted, given)}"
            )
        raise DataError(f"{path}: the columns {names} {told}")
    pairs = _suggested(read, [known for known in candidates if known.pairs]) if isinstance(matching, Prompt) else {}
    if pairs and wanted == "auto":
        raise DataError(
            f"{path}: the columns {', '.join(sorted(columns))} must be pairs or prompts alone, got"
            f" {' and '.join(pairs)} beside the prompt: {_to_add({**given, **pairs})}, or --data.options.format prompt"
        )
    return matching


def known_columns(wanted: str = "auto") -> frozenset[str]:
    """All columns that some format may read."""
    return frozenset().union(*(known.columns() for known in {*FORMATS, *_candidates(wanted)}))


def _candidates(wanted: str) -> tuple[Format, ...]:
    return FORMATS if wanted == "auto" else (format_of(wanted),)


def _misspelled(columns: Mapping[str, Any], wanted: str) -> dict[str, str]:
    """From columns that nothing reads to those of ours that their names are nearly, and that their values may be."""
    known = known_columns(wanted)
    # Other sets' names count as such where a format is made of them: an `inputs` beside our columns is no misspelling.
    spelled = known - (PROMPT_PARTS | {"output"} if wanted == "auto" else frozenset())
    found: dict[str, str] = {}
    for column in sorted(set(columns) - known):
        near = nearest(column, spelled - set(columns) - set(found.values()), cutoff=_ALIKE)
        if near and _may_be(near, columns[column]):
            found[column] = near
    return found


def _may_be(ours: str, value: Any) -> bool:
    """Whether a value is of the kind that our column holds: a `message` that is a string is no `messages`."""
    if value is None or ours not in ("prompt", "messages"):
        return True
    if isinstance(value, str):
        return ours == "prompt" or looks_like_messages(value)
    return isinstance(value, list)


def _worded(value: Any) -> bool:
    """Whether a value is a text of some words, or messages: a `user` may be a name or a number. Not all scripts put
    spaces between words."""
    if not isinstance(value, str):
        return isinstance(value, list)
    return len(value) > _NAME and (" " in value.strip() or (len(value) > 2 * _NAME and not value.isascii()))


def _example(columns: Mapping[str, Any], wanted: str, given: Mapping[str, str]) -> str:
    """How a map is written, with the file's own names, texts first; which of them is which only the user knows."""
    known, renamed = known_columns(wanted), set(given.values())
    theirs = sorted(
        (column for column in columns if column not in renamed),
        key=lambda column: (column in known, not _worded(columns[column])),
    )
    several = sum(_worded(columns[column]) for column in theirs) > 2 and "label" not in columns
    usual = ("prompt", "chosen", "rejected") if several else ("prompt", "completion")
    needed = usual if wanted == "auto" else _candidates(wanted)[0].needs[0]
    shown = dict(zip((name for name in theirs if name not in needed), (name for name in needed if name not in columns)))
    such = f", the file's first, such as '{_written({**given, **shown})}'" if shown else ""
    return f"--data.options.column_map{such}"


def _misfit(columns: Mapping[str, Any], wanted: str) -> str:
    sentence = "match no format" if wanted == "auto" else f"do not make the format {wanted!r} that was asked for"
    known = known_columns(wanted) - PROMPT_PARTS
    near = {column: nearest(column, known - set(columns)) for column in sorted(set(columns) - known)}
    alike = [(column, ours) for column, ours in near.items() if ours and _may_be(ours, columns[column])]
    guesses = [f"is {column!r} the column {ours!r}?" for column, ours in alike]
    return f"{sentence} ({' '.join(guesses)})" if guesses else sentence


def _tells(ours: str, value: Any) -> bool:
    """Whether a value speaks for the column of ours that other sets call by its column's name."""
    return _may_be(ours, value) and (ours != "prompt" or value is None or _worded(value))


def _suggested(columns: Mapping[str, Any], candidates: Sequence[Format]) -> dict[str, str]:
    """The column_map with which other sets' names make one of the formats, if any does and the values may be such."""
    by_lower = {column.lower().replace(" ", "_").replace("-", "_"): column for column in sorted(columns)}
    renamed: dict[str, str] = {}
    for ours, names in _ELSEWHERE.items():
        held = (by_lower[name] for name in names if name in by_lower)
        theirs = next((name for name in held if _tells(ours, columns[name])), None)
        if ours not in columns and theirs is not None:
            renamed[theirs] = ours
    prompted = "prompt" in {*columns, *renamed.values()}
    for found in candidates:
        for need in found.needs:
            used = {theirs: ours for theirs, ours in renamed.items() if ours in need}
            if used and (prompted or not found.pairs) and set(need) <= {*columns, *used.values()}:
                return used | {theirs: ours for theirs, ours in renamed.items() if ours == "prompt" and found.pairs}
    return {}


def _to_add(column_map: Mapping[str, str]) -> str:
    return f"add --data.options.column_map '{_written(column_map)}'"


def _written(column_map: Mapping[str, str]) -> str:
    """A map as YAML's flow style has it, ready to paste."""
    return "{" + ", ".join(f"{_quoted(theirs)}: {_quoted(ours)}" for theirs, ours in column_map.items()) + "}"


def _quoted(name: str) -> str:
    return name if name.replace("_", "").isalnum() and name.isascii() and not name[0].isdigit() else json.dumps(name)
