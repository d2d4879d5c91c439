"""Which of our columns and formats a file's columns are: renamed by the user, misspelled, or known from elsewhere."""

import json
from collections.abc import Collection, Mapping, Sequence

from lightning_bnf.datamodules.reading.errors import DataError, nearest
from lightning_bnf.datamodules.reading.formats import FORMATS, PROMPT_PARTS, Format, Prompt, format_of

_ALIKE = 0.85  # of 1: `choosen`, `promt`, `labels` are above it

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
    columns: Collection[str],
    wanted: str = "auto",
    ignore: Sequence[str] = (),
    column_map: Mapping[str, str] | None = None,
) -> Format:
    """The format of a file with `columns` (our names); `wanted` may name one. Misspelled columns are refused. A map
    that is suggested adds to `column_map`."""
    given = column_map or {}
    read = set(columns) - set(ignore)
    known = known_columns(wanted)
    # Other sets' names count as such where a format is made of them: an `inputs` beside our columns is no misspelling.
    spelled = known - (PROMPT_PARTS | {"output"} if wanted == "auto" else frozenset())
    misspelled: dict[str, str] = {}
    for column in sorted(read - known):
        near = nearest(column, spelled - read - set(misspelled.values()), cutoff=_ALIKE)
        if near:
            misspelled[column] = near
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
            told = f"{_misfit(read, wanted)}; they must be {accepted}; other names through column_map"
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


def _misfit(columns: set[str], wanted: str) -> str:
    sentence = "match no format" if wanted == "auto" else f"do not make the format {wanted!r} that was asked for"
    known = known_columns(wanted) - PROMPT_PARTS
    near = {column: nearest(column, known - columns) for column in sorted(columns - known)}
    guesses = [f"is {column!r} the column {ours!r}?" for column, ours in near.items() if ours]
    return f"{sentence} ({' '.join(guesses)})" if guesses else sentence


def _suggested(columns: set[str], candidates: Sequence[Format]) -> dict[str, str]:
    """The column_map with which other sets' names make one of the formats, if any does."""
    by_lower = {column.lower().replace(" ", "_").replace("-", "_"): column for column in sorted(columns)}
    renamed: dict[str, str] = {}
    for ours, names in _ELSEWHERE.items():
        theirs = next((by_lower[name] for name in names if name in by_lower), None)
        if ours not in columns and theirs is not None:
            renamed[theirs] = ours
    prompted = "prompt" in {*columns, *renamed.values()}
    for found in candidates:
        for need in found.needs:
            used = {theirs: ours for theirs, ours in renamed.items() if ours in need}
            if used and (prompted or not found.pairs) and set(need) <= columns | set(used.values()):
                return used | {theirs: ours for theirs, ours in renamed.items() if ours == "prompt" and found.pairs}
    return {}


def _to_add(column_map: Mapping[str, str]) -> str:
    return f"add --data.options.column_map '{_written(column_map)}'"


def _written(column_map: Mapping[str, str]) -> str:
    """A map as YAML's flow style has it, ready to paste."""
    return "{" + ", ".join(f"{_quoted(theirs)}: {_quoted(ours)}" for theirs, ours in column_map.items()) + "}"


def _quoted(name: str) -> str:
    return name if name.replace("_", "").isalnum() and name.isascii() and not name[0].isdigit() else json.dumps(name)
