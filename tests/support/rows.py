"""Rows as users write them, and what reading them gives or refuses."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest

from lightning_bnf.datamodules.reading.answers import as_completion, as_text
from lightning_bnf.datamodules.reading.formats import Content, Format
from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.datamodules.reading.records import DataError, Row, read_rows
from lightning_bnf.datamodules.reading.tables import Table


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


GOOD = {"prompt": [user("What is 3 + 4?")], "chosen": [assistant("7")], "rejected": [assistant("8")]}
ANSWER = {"prompt": "Q", "completion": "A", "label": True}


def answers(row: Row) -> list[tuple[Any, int]]:
    return [(completion.text or list(completion.messages or ()), completion.label) for completion in row.completions]


def refused(path: str | Table, *expected: str, **options: Any) -> str:
    """The message of the refusal, in which all of `expected` must stand."""
    with pytest.raises(DataError) as caught:
        read_rows(path, **options)
    message = str(caught.value)
    for part in expected:
        assert part in message, message
    return message


def only(path: str | Table, **options: Any) -> Row:
    (row,) = read_rows(path, **options)
    return row


FORMAT_MODULE = """
from lightning_bnf.datamodules.reading.answers import as_completion, as_text
from lightning_bnf.datamodules.reading.formats import Content, Format


class Asked(Format):
    needs = (("question", "answer"),)

    def read(self, values):
        prompt = as_text("question", values["question"])
        answer = values["answer"] + "{added}"
        return Content(prompt, (as_completion("answer", prompt, answer, 1, {{}}, "question"),))
"""
"""A format of one's own, as a module's text: it adds something to each answer."""


def define(session: ModuleType, added: str) -> None:
    """The same in a module without a file, as a notebook's cell defines it."""

    def read(_: Format, values: Mapping[str, Any]) -> Content:
        prompt = as_text("question", values["question"])
        answer = values["answer"] + added
        return Content(prompt, (as_completion("answer", prompt, answer, 1, {}, "question"),))

    own = {"__module__": session.__name__, "needs": (("question", "answer"),), "read": read}
    vars(session)["Asked"] = type("Asked", (Format,), own)
