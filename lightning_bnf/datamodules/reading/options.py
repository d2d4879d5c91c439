"""How data files are read and rendered: what a user sets under `data.options`."""

import datetime
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lightning_bnf.datamodules.reading.formats import Format, format_of
from lightning_bnf.runtime.arguments import AtLeastTwo, ClosedUnitInterval, PositiveInt, checked
from lightning_bnf.runtime.refusal import Refusal

DATE = "2024-07-26"  # what Llama 3.1's template writes where it cannot ask


@checked
@dataclass(frozen=True)
class Rendering:
    """How rows become token ids.

    Args:
        strings: What plain strings are: `chat` (one user and one assistant message, rendered by the chat template),
            `text` (no template, the end-of-sequence token appended), or `auto`: `chat` where the tokenizer has a
            template, unless prompts hold its special tokens, which is refused.
        system: What happens to a system message where the model's template has no place for one: `error`, `merge`
            (put before the first user message), or `drop`.
        train_on: Which assistant turns of a multi-turn conversation are trained: `last_turn` (behind the user's last
            message, calls of tools too), or `all_turns` (of pairs, the turns after the prompt that chosen and rejected
            share).
        template_arguments: Further arguments of the chat template, such as `{enable_thinking: false}`.
        date: What day it is for chat templates that write the date, so that rows are the same on every day.
        control_tokens: What happens where a text of the data holds the tokenizer's control tokens (`<|im_end|>`), which
            then are control tokens: `keep` (the report counts them) or `refuse`.
    """

    strings: Literal["auto", "text", "chat"] = "auto"
    system: Literal["error", "merge", "drop"] = "error"
    train_on: Literal["last_turn", "all_turns"] = "last_turn"
    template_arguments: dict[str, Any] | None = None
    date: str = DATE
    control_tokens: Literal["keep", "refuse"] = "keep"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", self.date) or not _is_date(self.date):
            raise Refusal(f"date must be a day like {DATE}, got {self.date!r}")


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


@checked
@dataclass(frozen=True)
class DataOptions:
    """How data files are read.

    Args:
        max_length: Longest prompt and completion together, in tokens.
        max_prompt_length: Longest prompt, in tokens; null: only max_length counts.
        truncation: What happens to longer rows: `drop`, or `trim` (the prompt from the left, down to half of
            max_length, its BOS kept; then the completion from the right; an end-of-turn token is never added).
        allow_drop: Share of a file's rows that may be dropped (0 to 1); more is an error.
        format: `auto` (from the columns), or one of them: `paired`, `grouped`, `unpaired`, `demonstration`, `prompt`;
            `instruction_paired`, `instruction`; `sharegpt`, `sharegpt_paired`, `sharegpt_unpaired`; or the class path
            of your own `Format`.
        column_map: The file's column names to ours, such as `{better: chosen}`.
        ignore_columns: Columns never to read, though their names are or resemble ours; and keys of messages to leave
            out, though they say what is to be trained, such as `reasoning_content`.
        subset: Configuration of hub data that has several.
        revision: Commit, tag or branch of hub data.
        rendering: How rows become token ids.
        processes: Processes that tokenize a JSON lines or Parquet file of 16 MiB or more; `auto` takes one for each
            core, 8 at most. It changes nothing of what they make.
    """

    max_length: AtLeastTwo = 4096
    max_prompt_length: PositiveInt | None = None
    truncation: Literal["drop", "trim"] = "drop"
    allow_drop: ClosedUnitInterval = 0.01
    format: str = "auto"
    column_map: dict[str, str] | None = None
    ignore_columns: list[str] | None = None
    subset: str | None = None
    revision: str | None = None
    rendering: Rendering = field(default_factory=Rendering)
    processes: PositiveInt | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.max_prompt_length is not None and self.max_prompt_length >= self.max_length:
            raise Refusal(
                f"max_prompt_length must be below max_length ({self.max_length}), or null, got {self.max_prompt_length}"
            )
        if self.format != "auto":
            format_of(self.format)

    @property
    def kind(self) -> Format | None:
        """The format that is asked for; None where columns tell it."""
        return None if self.format == "auto" else format_of(self.format)

    def of_rows(self) -> dict[str, Any]:
        """Those that rows depend on, by name."""
        return {name: value for name, value in asdict(self).items() if name != "processes"}
