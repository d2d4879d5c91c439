"""Which format a file has, told from its columns, and what its rows mean: pairs, groups, demonstrations, ...

To add a format, write one subclass of `Format` and give its class path as `data.options.format`; listed in `FORMATS`
it is found by its columns too.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, NamedTuple

from lightning_bnf.datamodules.reading.answers import (
    Completion,
    Text,
    as_answer,
    as_completion,
    as_text,
    bare,
    conversation_prompt,
    spoken,
)
from lightning_bnf.datamodules.reading.columns import (
    PAIRED_COLUMNS,
    SAMPLE_COLUMNS,
    SINGLE_COLUMNS,
    numbers_of,
    preferred,
    scores_of_samples,
    typed,
)
from lightning_bnf.datamodules.reading.errors import ALIKE, Fault, Unfit, shorten
from lightning_bnf.datamodules.reading.messages import (
    Message,
    check_messages,
    check_prompt,
    check_text,
    last_turn,
    shared_prefix,
)
from lightning_bnf.runtime.class_paths import class_at, source_of_module
from lightning_bnf.runtime.refusal import Refusal

_EVERYWHERE = frozenset({"prompt_id", "family", "verifier", "max_new_tokens", "kept_out", "tools"})


class Content(NamedTuple):
    """What the columns of one row say: a prompt and its completions."""

    prompt: Text
    completions: tuple[Completion, ...]


def _ships(kind: type) -> bool:
    """Whether a class comes with the package, or with Python."""
    return kind.__module__.partition(".")[0] in ("lightning_bnf", "abc", "builtins")


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

    code: ClassVar[str | None] = None
    """The text of its module when it was defined; None where there is none, and for those of the package."""

    def __init_subclass__(cls) -> None:
        cls.code = None if _ships(cls) else source_of_module(cls.__module__)
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
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("chosen", "rejected"),)
    may_have = PAIRED_COLUMNS | SAMPLE_COLUMNS | {"prompt"}
    pairs = True

    def read(self, values: Mapping[str, Any]) -> Content:
        chosen, rejected = (as_answer(column, values[column]) for column in ("chosen", "rejected"))
        if isinstance(chosen, str) != isinstance(rejected, str):
            raise Fault("columns 'chosen' and 'rejected' must be of one kind, got a string and a list")
        if bare(chosen) == bare(rejected):
            raise Unfit(
                ALIKE, f"columns 'chosen' and 'rejected' must be two answers, got {shorten(values['chosen'])} twice"
            )
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
        rejected = as_answer("rejected", values["rejected"])
        answers = [("samples", as_answer("samples", sample), +1) for sample in samples] + [("rejected", rejected, -1)]
        if any(bare(answer) == bare(rejected) for _, answer, _ in answers[:-1]):
            raise Unfit(ALIKE, f"column 'samples' must be other answers than the rejected one, got {shorten(rejected)}")
        completions = (as_completion(column, prompt, answer, label, {}, "prompt") for column, answer, label in answers)
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
            prompt = conversation_prompt(prompt, answer, answer[: last_turn(answer)])
        assert prompt is not None  # a format without `messages` has a prompt column
        prompt_column = "messages" if column == "messages" else "prompt"
        return Content(prompt, (as_completion(column, prompt, answer, +1, numbers_of(values), prompt_column),))


class Unpaired(Demonstration):
    """One completion with a label: preferred or not."""

    name = "unpaired"
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("prompt", "completion", "label"), ("messages", "label"))

    def read(self, values: Mapping[str, Any]) -> Content:
        label = +1 if preferred("label", values["label"]) else -1
        prompt, (completion,) = super().read(values)
        return Content(prompt, (replace(completion, label=label),))


def prompt_of_parts(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with a `prompt`, made of `instruction` or `question`, with `input` below it and `system` before it.

    Raises `Fault` for one that is no text.
    """
    column = "instruction" if "instruction" in values else "question"
    text = check_text(column, values[column])
    if str(values.get("input", "")).strip():
        text += "\n\n" + check_text("input", values["input"])
    rest = {name: value for name, value in values.items() if name not in PROMPT_PARTS}
    if not str(values.get("system", "")).strip():
        return rest | {"prompt": text}
    system = Message(role="system", content=check_text("system", values["system"]))
    return rest | {"prompt": [system, Message(role="user", content=text)]}


PROMPT_PARTS = frozenset({"instruction", "question", "input", "system"})
"""Columns of widely used sets that make up a prompt; read by the formats that need one of them alone."""


class InstructionPaired(Paired):
    """Pairs whose prompt is in `instruction` (Alpaca's columns) or `question`, with `input` and `system`."""

    name = "instruction_paired"
    needs = (("instruction", "chosen", "rejected"), ("question", "chosen", "rejected"))
    may_have = PAIRED_COLUMNS | SAMPLE_COLUMNS | {"input", "system"}

    def matches(self, columns: Collection[str]) -> frozenset[str] | None:
        return None if "prompt" in columns else super().matches(columns)

    def read(self, values: Mapping[str, Any]) -> Content:
        return super().read(prompt_of_parts(values))


class Instruction(Demonstration):
    """A demonstration in Alpaca's columns: `instruction`, `input`, `output`."""

    name = "instruction"
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("instruction", "output"),)
    may_have = SINGLE_COLUMNS | {"input", "system"}

    def matches(self, columns: Collection[str]) -> frozenset[str] | None:
        return None if {"prompt", "label"} & set(columns) else super().matches(columns)

    def read(self, values: Mapping[str, Any]) -> Content:
        return super().read(prompt_of_parts(values) | {"completion": values["output"]})


def messages_of_conversation(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with ShareGPT's `conversations` as `messages`, the `system` column's text first. Raises `Fault`."""
    turns = list(check_messages("conversations", values["conversations"]))
    if str(values.get("system", "")).strip():
        turns = [Message(role="system", content=check_text("system", values["system"])), *turns]
    return {name: value for name, value in values.items() if name not in ("conversations", "system")} | {
        "messages": turns
    }


class ShareGPT(Demonstration):
    """A conversation of ShareGPT's turns (`from` and `value`), which ends with what is imitated."""

    name = "sharegpt"
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("conversations",),)
    may_have = SINGLE_COLUMNS | {"system"}

    def matches(self, columns: Collection[str]) -> frozenset[str] | None:
        return None if {"prompt", "label", "chosen", "rejected"} & set(columns) else super().matches(columns)

    def read(self, values: Mapping[str, Any]) -> Content:
        return super().read(messages_of_conversation(values))


class ShareGPTUnpaired(Unpaired):
    """The same with a label."""

    name = "sharegpt_unpaired"
    needs = (("conversations", "label"),)
    may_have = ShareGPT.may_have

    def matches(self, columns: Collection[str]) -> frozenset[str] | None:
        return None if "prompt" in columns else super().matches(columns)

    def read(self, values: Mapping[str, Any]) -> Content:
        return super().read(messages_of_conversation(values))


class ShareGPTPaired(Paired):
    """Pairs behind a conversation of ShareGPT's turns; `chosen` and `rejected` are a turn each, or several."""

    name = "sharegpt_paired"
    needs = (("conversations", "chosen", "rejected"),)
    may_have = PAIRED_COLUMNS | {"system"}

    def matches(self, columns: Collection[str]) -> frozenset[str] | None:
        return None if {"prompt", "instruction", "question"} & set(columns) else super().matches(columns)

    def read(self, values: Mapping[str, Any]) -> Content:
        given = messages_of_conversation(values)
        sides = {side: [given[side]] if isinstance(given[side], dict) else given[side] for side in _SIDES}
        return super().read({"prompt": given.pop("messages"), **given, **sides})


_SIDES = ("chosen", "rejected")


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
FORMATS = (
    InstructionPaired(),
    ShareGPTPaired(),
    Paired(),
    Grouped(),
    Unpaired(),
    Demonstration(),
    ShareGPTUnpaired(),
    ShareGPT(),
    Instruction(),
    Prompt(),
)


_BY_NAME = {known.name: known for known in FORMATS}


def format_of(name: str) -> Format:
    """The format of a name, or of what a class path names by now. Raises `Refusal`."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    try:
        made = class_at(name) if "." in name else None
    except (ImportError, AttributeError):
        made = None
    if not (isinstance(made, type) and issubclass(made, Format)):
        accepted = ", ".join(repr(known.name) for known in FORMATS)
        raise Refusal(f"format must be 'auto', {accepted} or the class path of a Format, got {name!r}")
    return _made(made)


@cache  # by the class, not by its path: in a session that may be defined anew
def _made(kind: type[Format]) -> Format:
    return kind()


def codes_of(found: Format) -> list[str] | None:
    """The code that a format is made of, beside the package's: the modules of its classes, as they were when these were
    defined. None where it cannot be had."""
    codes: list[Any] = [vars(kind).get("code") for kind in type(found).__mro__ if not _ships(kind)]
    return None if None in codes else codes


def only_here(found: Format) -> bool:
    """Whether another process would not have the same format: it is of the main module, or its file has changed."""
    kinds = [kind for kind in type(found).__mro__ if not _ships(kind)]
    return any(
        kind.__module__ == "__main__" or vars(kind).get("code") != source_of_module(kind.__module__) for kind in kinds
    )
