"""Texts on a terminal: escapes, columns, widths."""

import io
import sys

import pytest

from lightning_bnf.generation.terminal import beside, cells, show, wrapped


def test_two_texts_stand_side_by_side_from_100_columns_on() -> None:
    """(101 - 3) // 2 = 49 cells each, with a bar between them."""
    texts = [("base", "one\n\ntwo"), ("aligned", "three")]
    assert beside(texts, 101).split("\n") == [
        "base" + " " * 45 + " | aligned",
        "-" * 49 + " | " + "-" * 49,
        "one" + " " * 46 + " | three",
        " " * 49 + " |",
        "two" + " " * 46 + " |",
    ]
    assert beside(texts, 99) == "base:\none\n\ntwo\n\naligned:\nthree"
    assert beside(texts[:1], 200) == "base:\none\n\ntwo"


def test_columns_hold_wide_characters_and_escapes() -> None:
    """60 characters of two cells in columns of 49: 24 to a line, and a gap of one cell."""
    lines = beside([("base", "日" * 60), ("aligned", "\x1b[1m")], 101).split("\n")[2:]
    assert lines == ["日" * 24 + "  | \\x1b[1m", "日" * 24 + "  |", "日" * 12 + " " * 25 + " |"]
    assert [cells(text) for text in ("ab", "日本", "e\u0301", "")] == [2, 4, 1, 0]


def test_lines_break_at_spaces_and_long_words_anywhere() -> None:
    assert wrapped("a bc def", 4) == ["a bc", "def"]
    assert wrapped("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert wrapped("    x = 1\ny", 9) == ["    x = 1", "y"], "code keeps its indentation"
    assert wrapped("    abcdefgh", 6) == ["    ab", "cdefgh"]
    assert wrapped("", 4) == [""]


def test_a_terminal_of_few_characters_gets_the_others_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    show("Zoë")
    assert raw.getvalue() == b"Zo\\xeb\n"
