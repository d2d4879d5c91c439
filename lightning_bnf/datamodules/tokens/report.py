"""What is printed of the data before training: so that nothing is lost or misread in silence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.errors import some_of
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.runtime.escapes import in_one_line

OPEN, CLOSE = "⟦", "⟧"
_SHOWN = 300  # characters of a decoded text; the middle of longer ones is left out
_SHOWN_ON_SCREEN = 160


@dataclass(frozen=True)
class Lengths:
    """Quantiles of lengths in tokens."""

    p50: int
    p95: int
    max: int


def lengths(values: Sequence[int]) -> Lengths | None:
    """p50, p95 and max of some lengths; None where there are none."""
    if not values:
        return None
    p50, p95 = np.percentile(values, [50, 95], method="higher")
    return Lengths(int(p50), int(p95), max(values))


class ReportText(NamedTuple):
    """A report as people read it, of a file or of a sentence alone.

    head: counts and lengths; sample: one row, cut so that it fits a screen; samples: several; read: rows of the file;
    kept_out: rows that are marked as kept out of training; votes: the first places of the labels 0 and -1
    """

    head: str
    sample: str = ""
    samples: str = ""
    read: int = 0
    kept_out: int = 0
    votes: Mapping[str, str] | None = None

    @property
    def full(self) -> str:
        """All of it, for a file."""
        return self.head + self.samples

    @property
    def short(self) -> str:
        """What is printed."""
        return self.head + self.sample


@dataclass(frozen=True)
class Report:
    """What one file or hub id holds.

    read, kept: rows; labels: how often a word stood for preferred or not; votes: the first places of the labels 0 and
    -1; dropped: rows by rule, and their places; trimmed: rows cut to length; repeated: places of rows whose content was
    there before (they are kept); contradicted: those of answers that were there with the other label (they are kept);
    kept_out: rows that are marked so; strings: how plain ones were rendered; notes: further sentences; the lengths are
    in tokens, of the rows that are kept; `row_lengths` are those of the prompt with its longest completion, which is
    what max_length limits.
    """

    path: str
    format: str
    read: int
    kept: int
    conversational: bool = True
    strings: str | None = None
    notes: tuple[str, ...] = ()
    labels: Mapping[tuple[str, bool], int] = field(default_factory=dict)
    votes: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    dropped_at: tuple[str, ...] = ()
    trimmed: int = 0
    ignored: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    contradicted: tuple[str, ...] = ()
    kept_out: int = 0
    prompt_lengths: Lengths | None = None
    completion_lengths: Lengths | None = None
    row_lengths: Lengths | None = None
    samples: tuple[TokenizedRow, ...] = ()

    def texts(self, tokenizer: PreTrainedTokenizerBase) -> ReportText:
        """The report with its samples, whose trained tokens are marked."""
        one = _listed(self.samples[:1], tokenizer, _SHOWN_ON_SCREEN, 3)
        every = _listed(self.samples, tokenizer, _SHOWN)
        return ReportText(self.head(), one, every, self.read, self.kept_out, dict(self.votes))

    def head(self) -> str:
        """What is said of all rows."""
        kind = "messages" if self.conversational else "plain strings"
        lines = [f"{self.path}: {self.kept:,} rows, format {self.format} ({kind})"]
        if self.strings:
            lines.append(f"  plain strings: {self.strings}")
        if self.labels:
            words = (f"{word} {'+1' if good else '-1'} ({count:,})" for (word, good), count in self.labels.items())
            lines.append(f"  labels: {', '.join(words)}")
        lines += [f"  {note}" for note in self.notes]
        if self.dropped:
            rules = ", ".join(f"{rule}: {count:,}" for rule, count in self.dropped.items())
            places = f": {some_of(self.dropped_at)}" if self.dropped_at else ""
            lines.append(f"  dropped {sum(self.dropped.values()):,} of {self.read:,} rows ({rules}){places}")
        if self.trimmed:
            lines.append(f"  trimmed {self.trimmed:,} of {self.read:,} rows to the length limits")
        if self.repeated:
            lines.append(f"  {len(self.repeated):,} rows repeat an earlier one (kept): {some_of(self.repeated)}")
        if self.contradicted:
            count, places = len(self.contradicted), some_of(self.contradicted)
            lines.append(f"  {count:,} answers are labelled both +1 and -1 (kept): {places}")
        if self.ignored:
            lines.append(f"  columns not used: {', '.join(map(in_one_line, self.ignored))}")
        named = {"prompt": self.prompt_lengths, "completion": self.completion_lengths, "together": self.row_lengths}
        table = [(name, found) for name, found in named.items() if found is not None]
        if self.completion_lengths is None:
            table = table[:1]  # prompts alone
        lines += [f"  {name + ' tokens:':<18} p50 {n.p50:>5}  p95 {n.p95:>5}  max {n.max:>5}" for name, n in table]
        return "\n".join(lines)


def _listed(
    rows: Sequence[TokenizedRow], tokenizer: PreTrainedTokenizerBase, shown: int, completions: int | None = None
) -> str:
    """Rows as they are trained on: `shown` characters of each text, and no more `completions` of a row (None: all)."""
    lines = [line for row in rows for line in _shown(row, tokenizer, shown, completions)]
    word = "a sample" if len(rows) == 1 else "samples"
    return "\n".join(["", f"  {word} (trained tokens between {OPEN} and {CLOSE}):", *lines]) if lines else ""


def _shown(row: TokenizedRow, tokenizer: PreTrainedTokenizerBase, shown: int, completions: int | None) -> list[str]:
    lines = [f"  {row.source}", f"    prompt    {_shortened(str(tokenizer.decode(row.prompt_ids)), shown)!r}"]
    for completion in row.completions[:completions]:
        lines.append(f"    label {completion.label:+d}  {_shortened(marked(completion, tokenizer), shown)!r}")
    more = len(row.completions) - len(row.completions[:completions])
    return [*lines, f"    and {more} more"] if more else lines


def _shortened(text: str, shown: int) -> str:
    return text if len(text) <= shown else f"{text[: shown // 2]} [...] {text[-(shown // 2) :]}"


def marked(completion: TokenizedCompletion, tokenizer: PreTrainedTokenizerBase) -> str:
    """The completion decoded, with its trained tokens between brackets."""
    text, inside = "", False
    run: list[int] = []
    for token, trained in [*zip(completion.ids, completion.completion_mask), (None, None)]:
        if trained != inside and run:
            decoded = str(tokenizer.decode(run))
            text += f"{OPEN}{decoded}{CLOSE}" if inside else decoded
            run = []
        inside = bool(trained)
        if token is not None:
            run.append(token)
    return text
