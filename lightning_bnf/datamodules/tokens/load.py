"""From a path to tokenized rows and a report: read, check, render, cut to length."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.errors import DataError, Fault, Faults, Unfit, some_of
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.records import RecordFile, Row, read_file
from lightning_bnf.datamodules.reading.tables import Table
from lightning_bnf.datamodules.tokens.renderer import Renderer, TokenizedRow
from lightning_bnf.datamodules.tokens.report import Report, lengths
from lightning_bnf.datamodules.tokens.truncation import fit
from lightning_bnf.runtime.progress import Progress

__all__ = ["DataOptions", "load_rows"]

_AT_ONCE = 500  # rows tokenized together: enough for the tokenizer's threads, little memory
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
    kept: list[TokenizedRow] = []
    controls: list[tuple[str, str]] = []
    faults, trimmed, longest = Faults(), 0, 0
    renderer = Renderer(tokenizer, options.rendering, end_ids)
    for row, found in _rendered(records.rows, renderer, path):
        try:
            if isinstance(found, Fault):
                raise found
            longest = max(longest, _longest(found))
            kept.append(fit(found, options, tokenizer.bos_token_id))
            controls += [(row.source, token) for token in renderer.control_tokens(row)]
            trimmed += kept[-1] is not found
        except Unfit as reason:
            unfit.append((row.source, reason))
        except Fault as fault:
            faults.add(row.source, fault)
    faults.raise_if_any()
    report = _report(path, records, renderer, kept, unfit, trimmed, controls)
    _check_dropped(report, options, unfit, longest)
    return kept, report


def _report(
    path: str,
    records: RecordFile,
    renderer: Renderer,
    kept: Sequence[TokenizedRow],
    unfit: Sequence[tuple[str, Unfit]],
    trimmed: int,
    controls: Sequence[tuple[str, str]],
) -> Report:
    return Report(
        path=path,
        format=records.format,
        conversational=records.conversational,
        strings=_strings(records.rows, renderer),
        notes=tuple(_notes(renderer, controls)),
        read=len(kept) + len(unfit),
        kept=len(kept),
        labels=records.labels,
        dropped=Counter(reason.rule for _, reason in unfit),
        dropped_at=tuple(place for place, _ in unfit),
        trimmed=trimmed,
        ignored=records.ignored,
        repeated=records.repeated,
        kept_out=sum(row.kept_out for row in kept),
        prompt_lengths=lengths([len(row.prompt_ids) for row in kept]),
        completion_lengths=lengths([len(completion.ids) for row in kept for completion in row.completions]),
        row_lengths=lengths([_longest(row) for row in kept]),
        samples=tuple(kept[:: max(1, (len(kept) - 1) // 2)][:3]),
    )


def _split_name(path: str) -> tuple[str, str | None]:
    """`owner/name:split` or `folder:split` apart; a path that exists, colon and all, stays whole."""
    found = re.fullmatch(r"(.+):([\w-]+)", path)
    if found is None or Path(path).exists() or not (Path(found[1]).is_dir() or re.fullmatch(r"[\w./-]+", found[1])):
        return path, None
    return found[1], found[2]


def _rendered(rows: Sequence[Row], renderer: Renderer, path: str) -> Iterator[tuple[Row, TokenizedRow | Fault]]:
    with Progress(len(rows), f"Tokenizing {path}", "row", delay=5) as bar:  # shown from 5 seconds on
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            yield from zip(some, renderer.rows(some))
            bar.update(len(some))


def _strings(rows: Sequence[Row], renderer: Renderer) -> str | None:
    """How plain strings were rendered, in words; None where there are none."""
    if not any(isinstance(row.prompt, str) for row in rows):
        return None
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
