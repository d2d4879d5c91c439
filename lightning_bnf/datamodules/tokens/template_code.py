"""A chat template as the program that it is: what it reads, what the time is for it, and how much it may take."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, time
from typing import Any
from unittest.mock import patch

import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers.utils import chat_template_utils

from lightning_bnf.datamodules.reading.errors import DataError, Fault, cut, nearest, reason
from lightning_bnf.runtime.limits import BYTES, SECONDS, limited

LONGEST = 2**26  # characters of a rendered conversation


class Clock:
    """Stands in for `datetime` where templates ask for the time: noon of one day, and whether they asked."""

    def __init__(self, date: str):
        """`date` as in `2024-07-26`."""
        self.noon = datetime.combine(datetime.fromisoformat(date).date(), time(12))
        self.asked = False

    def now(self) -> datetime:
        self.asked = True
        return self.noon

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Templates that transformers renders see this time."""
        with patch.object(chat_template_utils, "datetime", self):  # what its `strftime_now` asks
            yield


def within_bounds(render: Callable[[], str]) -> str:
    """What `render` returns. Raises `Fault` for a conversation that the template refuses, and `DataError` for a
    template that takes too long or too much, which it would do for other rows too."""
    try:
        with limited():
            text = render()
        if len(text) > LONGEST:
            raise MemoryError(f"{len(text):,} characters")
        text.encode()  # half a surrogate pair, which a template can write, is no text
    except TemplateError as error:
        raise Fault(f"the model's chat template refuses this conversation: {cut(str(error))}") from None
    except (TimeoutError, MemoryError, RecursionError) as error:
        raise DataError(
            f"the chat template must be one that renders a conversation within {SECONDS:g} s, {BYTES // 2**30} GiB and"
            f" {LONGEST:,} characters, got {reason(error)}"
        ) from None
    except Exception as error:
        raise Fault(f"the model's chat template refuses this conversation: {reason(error)}") from None
    return text


class _Generation(jinja2.ext.Extension):
    """The tag `generation` of transformers, around what an assistant says."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_GIVEN = frozenset(
    {"messages", "add_generation_prompt", "raise_exception", "strftime_now", "namespace", "dict", "range"}
)
"""What templates read that no argument sets."""


def check_arguments(source: str, arguments: Mapping[str, Any]) -> None:
    """Raises `DataError` for arguments that the template does not read: they would change nothing."""
    if not arguments:
        return
    environment = ImmutableSandboxedEnvironment(extensions=[_Generation, jinja2.ext.loopcontrols])
    try:
        with limited():
            names = jinja2.meta.find_undeclared_variables(environment.parse(source)) - _GIVEN
    except (TemplateError, TimeoutError, MemoryError, RecursionError):
        return  # rendering says what is wrong with it
    for name in arguments:
        if name not in names:
            near = nearest(name, names)
            hint = f"; did you mean {near!r}?" if near else ""
            raise DataError(
                "data.options.rendering.template_arguments must be of what the model's chat template reads"
                f" ({', '.join(sorted(names)) or 'nothing'}), got {name!r}{hint}"
            )
