"""From a path to tokenized rows and a report: read, check, render, cut to length."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.errors import DataError, Fault, Faults
from lightning_bnf.datamodules.records import read_file
from lightning_bnf.datamodules.report import Report, lengths
from lightning_bnf.datamodules.template import Renderer, Rendering, TokenizedCompletion, TokenizedRow

TOO_LONG = "longer than max_length"
PROMPT_TOO_LONG = "prompt longer than max_prompt_length"
NOTHING_LEFT = "no trained token left after trimming"


@dataclass(frozen=True)
class DataOptions:
    """How data files are read.

    Args:
        max_length: Longest prompt and completion together, in tokens.
        max_prompt_length: Longest prompt, in tokens; null: only max_length counts.
        truncation: What happens to longer rows: `drop`, or `trim` (the prompt from the left, down to one token, then
            the completion from the right; an end-of-turn token is never added).
        allow_drop: Share of a file's rows that may be dropped (0 to 1); more is an error.
        column_map: Our column names to the file's, such as `{chosen: better}`.
        revision: Commit, tag or branch of hub data.
        rendering: How rows become token ids.
    """

    max_length: int = 4096
    max_prompt_length: int | None = None
    truncation: Literal["drop", "trim"] = "drop"
    allow_drop: float = 0.01
    column_map: dict[str, str] | None = None
    revision: str | None = None
    rendering: Rendering = field(default_factory=Rendering)

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ValueError(f"max_length {self.max_length}: accepted are whole numbers from 2 (tokens)")
        if self.max_prompt_length is not None and self.max_prompt_length < 1:
            raise ValueError(f"max_prompt_length {self.max_prompt_length}: accepted are whole numbers from 1, or null")
        if self.truncation not in ("drop", "trim"):
            raise ValueError(f"truncation {self.truncation!r}: accepted are 'drop' and 'trim'")
        if not 0 <= self.allow_drop <= 1:
            raise ValueError(f"allow_drop {self.allow_drop}: accepted are shares from 0 to 1")


def load_rows(
    path: str, tokenizer: PreTrainedTokenizerBase, options: DataOptions | None = None, end_ids: Iterable[int] = ()
) -> tuple[list[TokenizedRow], Report]:
    """All rows of a file, a dataset folder or a hub id (`owner/name` or `owner/name:split`) as token ids.

    Raises `DataError`, naming file and line, for rows that cannot be used, and when more than `allow_drop` are dropped.
    """
    options = options or DataOptions()
    hub = None if Path(path).exists() else re.fullmatch(r"([\w.-]+/[\w.-]+):([\w.-]+)", path)
    name, split = (hub[1], hub[2]) if hub else (path, None)
    records = read_file(name, split, options.column_map, revision=options.revision)
    renderer = Renderer(tokenizer, options.rendering, end_ids)
    rows: list[TokenizedRow] = []
    faults = Faults()
    for record in records.rows:
        try:
            rows.append(renderer.row(record))
        except Fault as fault:
            faults.add(record.source, fault)
    faults.raise_if_any()
    kept: list[TokenizedRow] = []
    dropped: Counter[str] = Counter()
    for row in rows:
        fitting = _fitted(row, options)
        if isinstance(fitting, str):
            dropped[fitting] += 1
        else:
            kept.append(fitting)
    report = Report(
        path=path,
        format=records.format,
        read=len(rows),
        kept=len(kept),
        dropped=dict(dropped),
        ignored=records.ignored,
        duplicates=records.duplicates,
        prompt_lengths=lengths([len(row.prompt_ids) for row in kept]),
        completion_lengths=lengths([len(completion.ids) for row in kept for completion in row.completions]),
        samples=tuple(kept[:3]),
    )
    _check_dropped(report, options, rows)
    return kept, report


def _check_dropped(report: Report, options: DataOptions, rows: list[TokenizedRow]) -> None:
    count = sum(report.dropped.values())
    if count <= options.allow_drop * len(rows) and report.kept:
        return
    longest = max(len(row.prompt_ids) + max((len(c.ids) for c in row.completions), default=0) for row in rows)
    rules = ", ".join(f"{rule}: {n}" for rule, n in report.dropped.items())
    raise DataError(
        f"{report.path}: {count} of {len(rows)} rows would be dropped ({rules}; the longest row has {longest} tokens); "
        f"accepted is a share of allow_drop {options.allow_drop:g}: raise max_length or allow_drop, or set truncation: "
        "trim"
    )


def _fitted(row: TokenizedRow, options: DataOptions) -> TokenizedRow | str:
    """The row within the length limits, or the name of the rule that drops it."""
    prompt = len(row.prompt_ids)
    if options.max_prompt_length is not None and prompt > options.max_prompt_length:
        if options.truncation == "drop":
            return PROMPT_TOO_LONG
        prompt = options.max_prompt_length
    longest = max((len(completion.ids) for completion in row.completions), default=0)
    if prompt + longest > options.max_length:
        if options.truncation == "drop":
            return TOO_LONG
        prompt = max(1, min(prompt, options.max_length - longest))
    room = options.max_length - prompt
    completions = tuple(TokenizedCompletion(c.ids[:room], c.completion_mask[:room], c.label) for c in row.completions)
    if not all(any(completion.completion_mask) for completion in completions):
        return NOTHING_LEFT
    return replace(row, prompt_ids=row.prompt_ids[len(row.prompt_ids) - prompt :], completions=completions)
