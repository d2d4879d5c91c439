"""Texts of strangers: what a terminal or Markdown would obey is written out."""

import pytest

from lightning_bnf.runtime.escapes import in_one_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Paris\n\tFrance", "Paris\n    France"),
        ("\x1b[2J\x1b]0;mine\x07", "\\x1b[2J\\x1b]0;mine\\x07"),
        ("a\rb\x08c\x7f", "a\\rb\\x08c\\x7f"),
        ("\x9b31m", "\\x9b31m"),  # a control sequence in one byte
        ("\u202egpj.exe", "\\u202egpj.exe"),  # right to left from here
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
        ("Zoë 日本 👩\u200d👧", "Zoë 日本 👩\u200d👧"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_names_and_cells_stay_in_their_line() -> None:
    assert in_one_line("a\nb\tc\x1b[0m é") == "a\\nb\\tc\\x1b[0m é"
