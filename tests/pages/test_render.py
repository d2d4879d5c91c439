"""Templates: what stands in them is ours, what comes from data is escaped."""

import base64
import hashlib
import re

import pytest
from jinja2 import UndefinedError

from lightning_bnf.pages.render import inline, render


def test_the_browser_is_told_which_script_is_ours() -> None:
    html = render("token_view.html", "t", {"rows": []})
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html


def test_texts_are_escaped_and_figures_are_not() -> None:
    html = render("token_view.html", "<b>", {"a": "<b>"})
    assert "<b>" not in html
    assert "<title>&lt;b&gt;</title>" in html
    assert '{"a":"\\u003cb\\u003e"}' in html
    assert inline("<svg>") == "<svg>"


def test_without_tokens_there_is_no_script() -> None:
    assert "<script" not in render("token_view.html", "t")


def test_a_value_that_was_forgotten_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("report.html", "t")
