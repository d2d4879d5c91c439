"""What is printed of the data before training: so that nothing is lost or misread in silence."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.template import TokenizedCompletion, TokenizedRow

OPEN, CLOSE = "⟦", "⟧"


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


@dataclass(frozen=True)
class Report:
    """What one file or hub id holds.

    read, kept: rows; dropped: rows by rule; duplicates: rows whose content was there before (they are kept)
    """

    path: str
    format: str
    read: int
    kept: int
    dropped: dict[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    duplicates: int = 0
    prompt_lengths: Lengths | None = None
    completion_lengths: Lengths | None = None
    samples: tuple[TokenizedRow, ...] = ()

    def text(self, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
        """The report for people; with a tokenizer, three rows are shown with their trained tokens marked."""
        lines = [f"{self.path}: {self.kept} rows, format {self.format}"]
        if self.dropped:
            rules = ", ".join(f"{rule}: {count}" for rule, count in self.dropped.items())
            lines.append(f"  dropped {sum(self.dropped.values())} of {self.read} rows ({rules})")
        if self.duplicates:
            lines.append(f"  {self.duplicates} rows repeat an earlier one (kept)")
        if self.ignored:
            lines.append(f"  columns not used: {', '.join(self.ignored)}")
        for name, found in (("prompt", self.prompt_lengths), ("completion", self.completion_lengths)):
            if found is not None:
                lines.append(f"  {name} tokens: p50 {found.p50}, p95 {found.p95}, max {found.max}")
        if tokenizer is not None:
            lines += [shown for row in self.samples for shown in _shown(row, tokenizer)]
        return "\n".join(lines)


def _shown(row: TokenizedRow, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    lines = [f"  {row.source}  {tokenizer.decode(row.prompt_ids)!r}"]
    for completion in row.completions:
        sign = "+" if completion.label > 0 else "-"
        lines.append(f"    {sign} {marked(completion, tokenizer)!r}")
    return lines


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
