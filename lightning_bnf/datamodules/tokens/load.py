"""From a path to tokenized rows and a report: read, check, render, cut to length."""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.errors import DataError, Fault, Faults, Unfit, some_of
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.records import Row, read_file
from lightning_bnf.datamodules.reading.tables import Table
from lightning_bnf.datamodules.tokens.renderer import Renderer, TokenizedRow
from lightning_bnf.datamodules.tokens.report import Report, lengths
from lightning_bnf.datamodules.tokens.truncation import OF_LENGTH, fit
from lightning_bnf.runtime.progress import Progress

__all__ = ["DataOptions", "load_rows"]

AT_ONCE = 500  # rows tokenized together: enough for the tokenizer's threads, little memory
_SHOWN = 5  # dropped rows named in an error


def load_rows(
    source: str | Table,
    tokenizer: PreTrainedTokenizerBase,
    options: DataOptions | None = None,
    end_ids: Iterable[int] = (),
) -> tuple[list[TokenizedRow], Report]:
    """All rows of a file, a dataset folder or a hub id (either with `:split` behind it), or of a table, as token ids.

    `end_ids` are the ids that stop generation, besides the tokenizer's EOS. Raises `DataError`, naming file and line,
    for rows that cannot be used, and when more than `allow_drop` are dropped.
    """
    options = options or DataOptions()
    path = str(source)
    named, split = _split_name(source) if isinstance(source, str) else (source, None)
    unfit: list[tuple[str, Unfit]] = []
    records = read_file(
        named,
        split,
        column_map=options.column_map,
        format=options.format,
        ignore_columns=options.ignore_columns or (),
        subset=options.subset,
        revision=options.revision,
        unfit=unfit,
    )
    renderer, tally = Renderer(tokenizer, options.rendering, end_ids), Tally(unfit)
    kept: list[TokenizedRow] = []
    with tokenizing(path, len(records.rows)) as bar:
        for start in range(0, len(records.rows), AT_ONCE):
            some = records.rows[start : start + AT_ONCE]
            kept += fitting(some, renderer, options, tally)
            bar.update(len(some))
    report = report_of(path, renderer, options, tally, records)
    return kept, replace(report, samples=tuple(kept[i] for i in sampled(len(kept))))


def tokenizing(path: str, rows: int) -> Progress:
    """A bar that is shown from 5 seconds on."""
    return Progress(rows, f"Tokenizing {path}", "row", delay=5)


def sampled(kept: int) -> list[int]:
    """Which rows the report shows: the first, one of the middle, and one of the end."""
    return list(range(kept))[:: max(1, (kept - 1) // 2)][:3]


@dataclass
class Tally:
    """What became of rows as they were rendered and cut to length: what the report says of them all.

    unfit: those that are dropped, by their places; faults: those that cannot be used; controls: the control tokens in
    the texts of some, by their places; kept, kept_out, trimmed: rows; longest: tokens of the longest, before any is
    cut; conversational, plain: whether there are prompts of messages, and of plain text; dated: whether the chat
    template asked for the date; open_ended: whether it ends turns that are trained with no token; prompts, completions,
    together: lengths in tokens, the last of prompt and longest completion
    """

    unfit: list[tuple[str, Unfit]] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    controls: list[tuple[str, str]] = field(default_factory=list)
    kept: int = 0
    kept_out: int = 0
    trimmed: int = 0
    longest: int = 0
    conversational: bool = False
    plain: bool = False
    dated: bool = False
    open_ended: bool = False
    prompts: "array[int]" = field(default_factory=partial(array, "q"))
    completions: "array[int]" = field(default_factory=partial(array, "q"))
    together: "array[int]" = field(default_factory=partial(array, "q"))

    def count(self, row: TokenizedRow) -> None:
        """A row that is kept."""
        self.kept += 1
        self.kept_out += row.kept_out
        self.prompts.append(len(row.prompt_ids))
        self.completions.extend(len(completion.ids) for completion in row.completions)
        self.together.append(_longest(row))

    def add(self, other: "Tally") -> None:
        """What became of the rows that follow."""
        self.faults.extend(other.faults)
        self.longest = max(self.longest, other.longest)
        for name in ("unfit", "controls", "prompts", "completions", "together"):
            getattr(self, name).extend(getattr(other, name))
        for name in ("kept", "kept_out", "trimmed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("conversational", "plain", "dated", "open_ended"):
            setattr(self, name, getattr(self, name) or getattr(other, name))


def fitting(rows: Sequence[Row], renderer: Renderer, options: DataOptions, tally: Tally) -> list[TokenizedRow]:
    """Those of the rows that are kept, as token ids; `tally` is told what became of each."""
    kept = []
    for row, found in zip(rows, renderer.rows(rows)):
        tally.plain |= isinstance(row.prompt, str)
        tally.conversational |= not isinstance(row.prompt, str)
        try:
            if isinstance(found, Fault):
                raise found
            tally.longest = max(tally.longest, _longest(found))
            cut = fit(found, options, renderer.tokenizer.bos_token_id)
            tally.controls += [(row.source, token) for token in renderer.control_tokens(row)]
        except Unfit as reason:
            tally.unfit.append((row.source, reason))
        except Fault as fault:
            tally.faults.add(row.source, fault)
        else:
            tally.trimmed += cut is not found
            tally.count(cut)
            kept.append(cut)
    tally.dated |= renderer.asked_for_the_date
    tally.open_ended |= renderer.leaves_turns_open and any(row.completions for row in kept)
    return kept


class SeenInFile(Protocol):
    """What is known of a file when its rows were read: as `RecordFile` says."""

    @property
    def format(self) -> str: ...
    @property
    def labels(self) -> Mapping[tuple[str, bool], int]: ...
    @property
    def votes(self) -> Mapping[str, str]: ...
    @property
    def ignored(self) -> tuple[str, ...]: ...
    @property
    def repeated(self) -> tuple[str, ...]: ...
    @property
    def contradicted(self) -> tuple[str, ...]: ...


def report_of(path: str, renderer: Renderer, options: DataOptions, tally: Tally, seen: SeenInFile) -> Report:
    """The report, without samples. Raises `DataError` for faulty rows, and for too many that are dropped."""
    tally.faults.raise_if_any()
    report = Report(
        path=path,
        format=seen.format,
        conversational=tally.conversational,
        strings=_strings(renderer) if tally.plain else None,
        notes=tuple(_notes(renderer, tally)),
        read=tally.kept + len(tally.unfit),
        kept=tally.kept,
        labels=seen.labels,
        votes=seen.votes,
        dropped=Counter(reason.rule for _, reason in tally.unfit),
        dropped_at=tuple(place for place, _ in tally.unfit),
        trimmed=tally.trimmed,
        ignored=seen.ignored,
        repeated=seen.repeated,
        contradicted=seen.contradicted,
        kept_out=tally.kept_out,
        prompt_lengths=lengths(tally.prompts),
        completion_lengths=lengths(tally.completions),
        row_lengths=lengths(tally.together),
    )
    _check_dropped(report, options, tally.unfit, tally.longest)
    return report


def _split_name(path: str) -> tuple[str, str | None]:
    """`owner/name:split` or `folder:split` apart; a path that exists, colon and all, stays whole."""
    found = re.fullmatch(r"(.+):([\w-]+)", path)
    if found is None or Path(path).exists() or not (Path(found[1]).is_dir() or re.fullmatch(r"[\w./-]+", found[1])):
        return path, None
    return found[1], found[2]


def _strings(renderer: Renderer) -> str:
    """How plain strings were rendered, in words."""
    given = f"(data.options.rendering.strings: {renderer.rendering.strings}"
    if renderer.strings == "chat":
        return f"a user's and an assistant's message, by the model's chat template, without spaces around them {given})"
    template = "" if renderer.tokenizer.chat_template else "; the tokenizer has no chat template"
    return f"as they are, the end-of-sequence token behind the answer {given}{template})"


def _notes(renderer: Renderer, tally: Tally) -> Iterator[str]:
    """What the chat template and the texts do that nobody may have meant."""
    if tally.dated:
        yield f"the chat template writes the date: always {renderer.rendering.date} (data.options.rendering.date)"
    if tally.open_ended:
        yield (
            "the chat template ends the assistant's last turn with no token: where answers end is not trained, and"
            " stays as the model has it"
        )
    if tally.controls:
        counts = Counter(token for _, token in tally.controls).most_common(3)
        places = list(dict.fromkeys(place for place, _ in tally.controls))
        named = ", ".join(f"{token} in {count:,}" for token, count in counts)
        option = "data.options.rendering.control_tokens"
        yield f"{len(places):,} rows have control tokens in their texts ({named}; {option}): {some_of(places)}"


def _longest(row: TokenizedRow) -> int:
    return len(row.prompt_ids) + max((len(completion.ids) for completion in row.completions), default=0)


def _check_dropped(report: Report, options: DataOptions, unfit: Sequence[tuple[str, Unfit]], longest: int) -> None:
    if len(unfit) <= options.allow_drop * report.read and report.kept:
        return
    rules = ", ".join(f"{rule}: {count}" for rule, count in report.dropped.items())
    told = f"; the longest row has {longest} tokens" if longest > options.max_length else ""
    longer = OF_LENGTH & set(report.dropped)
    ways = "raise max_length or allow_drop, set truncation: trim, or" if longer else "raise allow_drop, or"
    places = "".join(f"\n{place}: {reason}" for place, reason in unfit[:_SHOWN])
    raise DataError(
        f"{report.path}: dropped rows must be at most allow_drop ({options.allow_drop:g}) of all, got {len(unfit)} of"
        f" {report.read} ({rules}{told}): {ways} mend the rows:{places}"
    )
