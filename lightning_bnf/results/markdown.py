"""Tables as Markdown."""

from collections.abc import Sequence
from typing import Any

from lightning_bnf.runtime.escapes import in_one_line


def markdown_table(header: Sequence[Any], *rows: Sequence[Any], padded: bool = False) -> str:
    """A Markdown table of cells, with `|` and controls in them escaped; no newline at its end.

    `padded`: columns of equal width, for reading on a terminal too. Raises `Refusal` for rows of unequal length.
    """
    cells = [[in_one_line(str(cell)).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) if padded else 0 for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * max(3, width + 2) for width in widths) + "|", *lines[1:]])
