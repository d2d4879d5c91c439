"""Rows of several files: which of them are there twice."""

from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import repeated_rows


def row(number: int) -> TokenizedRow:
    return TokenizedRow(str(number), f"file:{number}", "prompt", [7])


def test_rows_that_repeat_those_of_earlier_files_are_named() -> None:
    first, second = [row(1), row(2), row(2)], [row(3), row(2)]
    assert repeated_rows([first, second]) == ["file:2"]
    assert repeated_rows([first, first]) == ["file:1", "file:2", "file:2"]
    assert repeated_rows([first]) == [], "those within a file are in its own report"
