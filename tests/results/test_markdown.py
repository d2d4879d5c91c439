"""Tables as Markdown, character by character."""

import pytest

from lightning_bnf.results.markdown import markdown_table


def test_cells_are_text_and_their_bars_are_escaped() -> None:
    assert markdown_table(("", "n"), ("a|b", 1), ["c", None]) == "|  | n |\n|---|---|\n| a\\|b | 1 |\n| c | None |"


def test_what_a_cell_holds_is_neither_a_line_nor_an_escape() -> None:
    (line,) = markdown_table(["family"], ["a\n| b\x1b[2J"]).split("\n")[2:]
    assert line == r"| a\n\| b\x1b[2J |"


def test_columns_of_equal_width() -> None:
    assert markdown_table(["", "n"], ["long", 1], padded=True) == "|      | n |\n|------|---|\n| long | 1 |"


def test_a_header_alone_is_a_table_and_rows_of_unequal_length_are_refused() -> None:
    assert markdown_table("a") == "| a |\n|---|"
    with pytest.raises(ValueError, match="shorter"):
        markdown_table("ab", "c")
