"""From a path to tokenized rows and a report: read, check, render, cut to length."""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.errors import DataError, Fault, Faults, Unfit, some_of
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.records import Row, read_file
from lightning_bnf.datamodules.reading.tables import Table
from lightning_bnf.datamodules.tokens.renderer import Renderer, TokenizedRow
from lightning_bnf.datamodules.tokens.report import Report, lengths
from lightning_bnf.datamodules.tokens.truncation import fit
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
    loading = Loading(path, Renderer(tokenizer, options.rendering, end_ids), options, unfit)
    kept: list[TokenizedRow] = []
    with loading.progress(len(records.rows)) as bar:
        for start in range(0, len(records.rows), AT_ONCE):
            some = records.rows[start : start + AT_ONCE]
            kept += loading.take(some)
            bar.update(len(some))
    report = loading.report(records.format, records.labels, records.ignored, records.repeated)
    return kept, replace(report, samples=tuple(kept[i] for i in sampled(len(kept))))


def sampled(kept: int) -> list[int]:
    """Which rows the report shows: the first, one of the middle, and one of the end."""
    return list(range(kept))[:: max(1, (kept - 1) // 2)][:3]


class Loading:
    """Rows as they come, rendered and cut to length, and what the report says of them all."""

    def __init__(self, path: str, renderer: Renderer, options: DataOptions, unfit: list[tuple[str, Unfit]]):
        self.path, self.renderer, self.options, self.unfit = path, renderer, options, unfit
        self.faults, self.controls = Faults(), list[tuple[str, str]]()
        self.kept = self.kept_out = self.trimmed = self.longest = 0
        self.conversational = self.plain = False
        self.prompts, self.completions, self.together = array("q"), array("q"), array("q")  # lengths

    def progress(self, rows: int) -> Progress:
        """A bar that is shown from 5 seconds on."""
        return Progress(rows, f"Tokenizing {self.path}", "row", delay=5)

    def take(self, rows: Sequence[Row]) -> list[TokenizedRow]:
        """Those of the rows that are kept, as token ids."""
        kept = []
        for row, found in zip(rows, self.renderer.rows(rows)):
            self.plain |= isinstance(row.prompt, str)
            self.conversational |= not isinstance(row.prompt, str)
            try:
                if isinstance(found, Fault):
                    raise found
                self.longest = max(self.longest, _longest(found))
                fitting = fit(found, self.options, self.renderer.tokenizer.bos_token_id)
                self.controls += [(row.source, token) for token in self.renderer.control_tokens(row)]
            except Unfit as reason:
                self.unfit.append((row.source, reason))
            except Fault as fault:
                self.faults.add(row.source, fault)
            else:
                self.trimmed += fitting is not found
                self._count(fitting)
                kept.append(fitting)
        return kept

    def _count(self, row: TokenizedRow) -> None:
        self.kept += 1
        self.kept_out += row.kept_out
        self.prompts.append(len(row.prompt_ids))
        self.completions.extend(len(completion.ids) for completion in row.completions)
        self.together.append(_longest(row))

    def report(
        self,
        format: str,
        labels: Mapping[tuple[str, bool], int],
        ignored: tuple[str, ...],
        repeated: tuple[str, ...],
    ) -> Report:
        """The report, without samples. Raises `DataError` for faulty rows, and for too many that are dropped."""
        self.faults.raise_if_any()
        report = Report(
            path=self.path,
            format=format,
            conversational=self.conversational,
            strings=_strings(self.renderer) if self.plain else None,
            notes=tuple(_notes(self.renderer, self.controls)),
            read=self.kept + len(self.unfit),
            kept=self.kept,
            labels=labels,
            dropped=Counter(reason.rule for _, reason in self.unfit),
            dropped_at=tuple(place for place, _ in self.unfit),
            trimmed=self.trimmed,
            ignored=ignored,
            repeated=repeated,
            kept_out=self.kept_out,
            prompt_lengths=lengths(self.prompts),
            completion_lengths=lengths(self.completions),
            row_lengths=lengths(self.together),
        )
        _check_dropped(report, self.options, self.unfit, self.longest)
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


def _notes(renderer: Renderer, controls: Sequence[tuple[str, str]]) -> Iterator[str]:
    """What the chat template and the texts do that nobody may have meant."""
    if renderer.asked_for_the_date:
        yield f"the chat template writes the date: always {renderer.rendering.date} (data.options.rendering.date)"
    if controls:
        counts = Counter(token for _, token in controls).most_common(3)
        places = list(dict.fromkeys(place for place, _ in controls))
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
    places = "".join(f"\n{place}: {reason}" for place, reason in unfit[:_SHOWN])
    raise DataError(
        f"{report.path}: dropped rows must be at most allow_drop ({options.allow_drop:g}) of all, got {len(unfit)} of"
        f" {report.read} ({rules}{told}): raise max_length or allow_drop, set truncation: trim, or mend the rows:"
        f"{places}"
    )
