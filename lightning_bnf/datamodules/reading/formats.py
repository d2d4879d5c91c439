"""Which format a file has, told from its columns, and what its rows mean: pairs, groups, demonstrations, ...

To add a format, write one subclass of `Format` and give its class path as `data.options.format`; listed in `FORMATS`
it is found by its columns too.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, NamedTuple

from lightning_bnf.datamodules.reading.answers import (
    Completion,
    Text,
    as_answer,
    as_completion,
    as_text,
    conversation_prompt,
    spoken,
)
from lightning_bnf.datamodules.reading.columns import (
    PAIRED_COLUMNS,
    SAMPLE_COLUMNS,
    SINGLE_COLUMNS,
    numbers_of,
    scores_of_samples,
    typed,
)
from lightning_bnf.datamodules.reading.errors import DataError, Fault, nearest, shorten
from lightning_bnf.datamodules.reading.messages import check_messages, check_prompt, shared_prefix
from lightning_bnf.runtime.refusal import Refusal

_EVERYWHERE = frozenset({"prompt_id", "family", "verifier", "max_new_tokens", "kept_out"})


class Content(NamedTuple):
    """What the columns of one row say: a prompt and its completions."""

    prompt: Text
    completions: tuple[Completion, ...]


class Format(ABC):
    """What the rows of a file are. Everything else asks what a format declares, never which one it is."""

    name: ClassVar[str]
    """What rows, reports and `data.options.format` call it; where a class says nothing, its class path."""
    needs: ClassVar[tuple[tuple[str, ...], ...]]
    """Sets of columns, of which a file must have one."""
    may_have: ClassVar[frozenset[str]] = frozenset()
    """Further columns that are read where they are there."""
    pairs: ClassVar[bool] = False
    """Whether a row is a chosen completion and, behind it, a rejected one."""
    groups: ClassVar[bool] = False
    """Whether a row is several preferred samples and, behind them, a rejected completion."""
    single: ClassVar[bool] = False
    """Whether a row is one conversation, of which `train_on: all_turns` trains the earlier answers too."""

    def __init_subclass__(cls) -> None:
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}.{cls.__qualname__}"

    @abstractmethod
    def read(self, values: Mapping[str, Any]) -> Content:
        """A row's values by column, none of them null and all of `needs` among them. Raises `Fault`."""

    def matches(self, columns: Collection[str]) -> frozenset[str] | None:
        """The set of columns that `columns` fulfils, if any."""
        return next((frozenset(need) for need in self.needs if set(need) <= set(columns)), None)

    def reads(self, columns: Collection[str]) -> frozenset[str]:
        """The columns of a file with `columns` that this format uses."""
        return ((self.matches(columns) or frozenset()) | self.may_have | _EVERYWHERE) & set(columns)

    def columns(self) -> frozenset[str]:
        """All columns that it may use."""
        return self.may_have.union(_EVERYWHERE, *self.needs)

    def sentence(self) -> str:
        """The columns that a file must have, in words."""
        return " or ".join(" and ".join(filter(None, (", ".join(need[:-1]), need[-1]))) for need in self.needs)


class Paired(Format):
    """A chosen and a rejected completion, with or without a column for the prompt that both begin with."""

    name = "paired"
    needs = (("chosen", "rejected"),)
    may_have = PAIRED_COLUMNS | SAMPLE_COLUMNS | {"prompt"}
    pairs = True

    def read(self, values: Mapping[str, Any]) -> Content:
        chosen, rejected = (as_answer(column, values[column]) for column in ("chosen", "rejected"))
        if isinstance(chosen, str) != isinstance(rejected, str):
            raise Fault("columns 'chosen' and 'rejected' must be of one kind, got a string and a list")
        if chosen == rejected:
            raise Fault(f"columns 'chosen' and 'rejected' must be two answers, got {shorten(values['chosen'])} twice")
        given = as_text("prompt", values["prompt"]) if "prompt" in values else None
        if isinstance(chosen, str) or isinstance(rejected, str):
            if given is None:
                raise Fault(
                    "column 'prompt' must be given with chosen and rejected as strings, got none"
                    " (only message lists can hold the prompt themselves: where two strings part is no turn's end)"
                )
            prompt: Text = given
        else:
            prompt = conversation_prompt(given, chosen, shared_prefix(chosen, rejected))
        scored = scores_of_samples(values, spoken(chosen), spoken(rejected))
        numbers = [scores | numbers_of(values, suffix) for scores, suffix in zip(scored, ("_chosen", "_rejected"))]
        sides = (("chosen", chosen, +1), ("rejected", rejected, -1))
        completions = (
            as_completion(column, prompt, answer, label, scores, column if given is None else "prompt")
            for (column, answer, label), scores in zip(sides, numbers)
        )
        return Content(prompt, tuple(completions))


class Grouped(Format):
    """Several samples, all of them preferred, and one rejected completion."""

    name = "grouped"
    needs = (("prompt", "samples", "rejected"),)
    groups = True

    def read(self, values: Mapping[str, Any]) -> Content:
        prompt = as_text("prompt", values["prompt"])
        samples = typed("samples", values["samples"], (list,), "a list of answers, each a string or messages")
        if not samples:
            raise Fault("column 'samples' must be one answer or more, got an empty list")
        answers = [("samples", sample, +1) for sample in samples] + [("rejected", values["rejected"], -1)]
        completions = (
            as_completion(column, prompt, as_answer(column, answer), label, {}, "prompt")
            for column, answer, label in answers
        )
        return Content(prompt, tuple(completions))


class Demonstration(Format):
    """One completion to imitate, or a conversation that ends with it."""

    name = "demonstration"
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("prompt", "completion"), ("messages",))
    may_have = SINGLE_COLUMNS
    single = True

    def read(self, values: Mapping[str, Any]) -> Content:
        column = "completion" if "completion" in values else "messages"
        if column == "messages":
            check_messages(column, values[column])  # here a string is no answer
        answer = as_answer(column, values[column])
        prompt = as_text("prompt", values["prompt"]) if "prompt" in values and column == "completion" else None
        if isinstance(answer, tuple):
            prompt = conversation_prompt(prompt, answer, answer[:-1])
        assert prompt is not None  # a format without `messages` has a prompt column
        prompt_column = "messages" if column == "messages" else "prompt"
        return Content(prompt, (as_completion(column, prompt, answer, +1, numbers_of(values), prompt_column),))


class Unpaired(Demonstration):
    """One completion with a label: preferred or not."""

    name = "unpaired"
    needs = (("prompt", "completion", "label"), ("messages", "label"))

    def read(self, values: Mapping[str, Any]) -> Content:
        label = values["label"]
        if not isinstance(label, bool):
            raise Fault(
                f"column 'label' must be true (preferred) or false (dispreferred) without quotes, got {shorten(label)};"
                " convert with Python's `label == 1` or `label == 'true'`, whichever fits"
            )
        prompt, (completion,) = super().read(values)
        return Content(prompt, (replace(completion, label=+1 if label else -1),))


class Prompt(Format):
    """A prompt alone, to be completed."""

    name = "prompt"
    needs = (("prompt",),)

    def read(self, values: Mapping[str, Any]) -> Content:
        prompt = as_text("prompt", values["prompt"])
        if not isinstance(prompt, str):
            check_prompt("prompt", prompt)
        return Content(prompt, ())


# In this order: a file is of the first format whose columns it has. `label` comes before its absence, so that
# completions marked as bad are never taken for demonstrations.
FORMATS = (Paired(), Grouped(), Unpaired(), Demonstration(), Prompt())


@cache
def format_of(name: str) -> Format:
    """The format of a name, or of a class path. Raises `Refusal`."""
    for known in FORMATS:
        if known.name == name:
            return known
    module, _, attribute = name.rpartition(".")
    try:
        made = getattr(importlib.import_module(module), attribute)
    except (ValueError, ImportError, AttributeError):
        made = None
    if not (isinstance(made, type) and issubclass(made, Format)):
        accepted = ", ".join(repr(known.name) for known in FORMATS)
        raise Refusal(f"format must be 'auto', {accepted} or the class path of a Format, got {name!r}")
    return made()


_ALIKE = 0.85  # of 1: `choosen`, `promt`, `labels` are above it


def map_columns(
    path: str, columns: Collection[str], column_map: Mapping[str, str], wanted: str = "auto"
) -> dict[str, str]:
    """From each column of the file to our name for it. `column_map` is from our name to the file's name."""
    known_columns = _known_columns(wanted)
    for ours, theirs in column_map.items():
        if ours not in known_columns:
            near = nearest(ours, known_columns)
            hint = f"; did you mean {near!r}?" if near else f", one of {', '.join(sorted(known_columns))}"
            raise DataError(f"{path}: column_map must rename to a column that is read, got {ours!r}{hint}")
        if theirs not in columns:
            near = nearest(theirs, columns)
            hint = f"; did you mean {near!r}?" if near else f"; its columns are: {', '.join(sorted(columns))}"
            raise DataError(f"{path}: column_map takes {ours!r} from {theirs!r}, which the file does not have{hint}")
    renamed = {theirs: ours for ours, theirs in column_map.items()}
    # A column whose own name was given to another one keeps its content under a name that nothing reads.
    return {
        column: renamed.get(column, column if column not in column_map else f"{column} (replaced by column_map)")
        for column in columns
    }


def detect_format(path: str, columns: Collection[str], wanted: str = "auto", ignore: Sequence[str] = ()) -> Format:
    """The format of a file with `columns` (our names); `wanted` may name one. Misspelled columns are refused."""
    read, known_columns = set(columns) - set(ignore), _known_columns(wanted)
    for column in sorted(read - known_columns):
        near = nearest(column, known_columns - read, cutoff=_ALIKE)
        if near:
            raise DataError(
                f"{path}: unknown column {column!r}; did you mean {near!r}? If so rename it or set column_map"
                f" {{{near}: {column}}}, if not list it under ignore_columns"
            )
    candidates = _candidates(wanted)
    matching = next((known for known in candidates if known.matches(read)), None)
    if matching is None:
        accepted = ", ".join(f"{known.sentence()} ({known.name})" for known in candidates)
        raise DataError(
            f"{path}: the columns {', '.join(sorted(columns))} {_misfit(read, wanted)}; they must be {accepted}; other"
            " names through column_map"
        )
    return matching


def _candidates(wanted: str) -> tuple[Format, ...]:
    return FORMATS if wanted == "auto" else (format_of(wanted),)


def _known_columns(wanted: str) -> frozenset[str]:
    return frozenset().union(*(known.columns() for known in {*FORMATS, *_candidates(wanted)}))


def _misfit(columns: set[str], wanted: str) -> str:
    sentence = "match no format" if wanted == "auto" else f"do not make the format {wanted!r} that was asked for"
    known_columns = _known_columns(wanted)
    near = {column: nearest(column, known_columns - columns) for column in sorted(columns - known_columns)}
    guesses = [f"is {column!r} the column {ours!r}?" for column, ours in near.items() if ours]
    return f"{sentence} ({' '.join(guesses)})" if guesses else sentence
