"""Templates that take no end, that ask for the date, and arguments that they do not read."""

from datetime import datetime
from typing import Any

import pytest
from support.templates import CHATML, PAIR, with_template

from lightning_bnf.datamodules.reading.errors import DataError, Fault
from lightning_bnf.datamodules.reading.options import Rendering
from lightning_bnf.datamodules.tokens import template_code
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.datamodules.tokens.template_code import Clock, check_arguments, within_bounds
from lightning_bnf.runtime.limits import limited

LONG = "{% for i in range(99999) %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (LONG + LONG + "{% endfor %}{% endfor %}", "got TimeoutError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "got RecursionError"),
        ("{{ 'a' * 10000000000 }}", "got MemoryError"),
        ("{% set ns = namespace(x='ab') %}" + LONG + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "got MemoryError"),
        (LONG + "{{ 'a' * 20 }}{% endfor %}", "got MemoryError: 2,000,047 characters"),
    ],
)
def test_a_template_that_takes_too_much_is_refused(
    tokenizer: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, template: str, expected: str
) -> None:
    """With bounds that are soon reached, but for the clock where another is to come first on however slow a machine;
    the first row ends it, as the others would do the same."""
    seconds = 0.3 if "Timeout" in expected else 600
    monkeypatch.setattr(template_code, "limited", lambda: limited(seconds=seconds, size=2**28))
    monkeypatch.setattr(template_code, "LONGEST", 10**6)
    with pytest.raises(DataError, match=f"must be one that renders a conversation within .*, {expected}"):
        Renderer(with_template(tokenizer, template + CHATML)).rows(rows(PAIR))


@pytest.mark.parametrize("template", ["{{ 1 // 0 }}", "{% for i in range(99999999) %}{% endfor %}", "{{ x.y.z }}"])
def test_a_template_that_fails_is_refused(tokenizer: Any, rows: Any, template: str) -> None:
    with pytest.raises(DataError, match="the model's chat template refuses this conversation"):
        Renderer(with_template(tokenizer, template + CHATML)).rows(rows(PAIR))


def test_a_failure_in_a_row_is_that_rows() -> None:
    with pytest.raises(Fault, match="the model's chat template refuses this conversation: KeyError: no 'tools'"):
        within_bounds(lambda: {}["tools"])


def test_the_date_is_pinned_and_noticed(tokenizer: Any, rows: Any) -> None:
    """As Llama 3.1's template does it: the day is the one that is set, whatever day it is."""
    dated = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    asks = Renderer(with_template(tokenizer, dated + "Today: {{ date_string }}\n" + CHATML))
    ids = [
        Renderer(asks.tokenizer, rendering).row(rows(PAIR)[0]).prompt_ids
        for rendering in (Rendering(), Rendering(date="2025-01-02"))
    ]
    assert [tokenizer.decode(found).split("\n")[0] for found in ids] == ["Today: 26 Jul 2024", "Today: 02 Jan 2025"]
    assert not asks.asked_for_the_date
    asks.row(rows(PAIR)[0])
    assert asks.asked_for_the_date
    plain = Renderer(tokenizer)
    plain.row(rows(PAIR)[0])
    assert not plain.asked_for_the_date


def test_the_clock_is_noon() -> None:
    clock = Clock("2024-02-29")
    assert (clock.asked, clock.now(), clock.asked) == (False, datetime(2024, 2, 29, 12), True)


def test_arguments_that_the_template_does_not_read_are_refused() -> None:
    source = "{% if enable_thinking is defined %}{% generation %}{{ messages }}{% endgeneration %}{% endif %}"
    check_arguments(source, {"enable_thinking": False})
    with pytest.raises(
        DataError, match=r"reads \(enable_thinking\), got 'enable_thinkin'; did you mean 'enable_thinking"
    ):
        check_arguments(source, {"enable_thinkin": False})
    for taken in ("messages", "tokenize", "chat_template"):
        with pytest.raises(DataError, match=f"template_arguments must be of what .*, got '{taken}'"):
            check_arguments(source, {taken: 1})
