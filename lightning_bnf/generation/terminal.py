"""Texts of models on a terminal: escaped, and side by side."""

import sys
import unicodedata
from collections.abc import Iterator, Sequence

from lightning_bnf.runtime.escapes import JOINERS, visible

WIDE_ENOUGH = 100
"""Columns of a terminal from which on two texts stand side by side."""

_GAP = " | "


def show(text: str) -> None:
    """Print at once; what the terminal's encoding has no character for is written out too."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def beside(texts: Sequence[tuple[str, str]], width: int) -> str:
    """Titles and texts, escaped: two in columns where `width` is enough for that, else one below the other."""
    escaped = [(title, visible(text)) for title, text in texts]
    if len(escaped) != 2 or width < WIDE_ENOUGH:
        return "\n\n".join(f"{title}:\n{text}" for title, text in escaped)
    column = (width - len(_GAP)) // 2
    left, right = ([title, "-" * column, *wrapped(text, column)] for title, text in escaped)
    rows = max(len(left), len(right))
    lines = [[*column_lines, *[""] * (rows - len(column_lines))] for column_lines in (left, right)]
    return "\n".join(f"{one}{' ' * (column - cells(one))}{_GAP}{other}".rstrip() for one, other in zip(*lines))


def wrapped(text: str, width: int) -> list[str]:
    """The lines of `text`, broken at spaces to at most `width` cells each; words longer than that are cut."""
    return [piece for line in text.split("\n") for piece in _broken(line, width)]


def _broken(line: str, width: int) -> Iterator[str]:
    while cells(line) > width:
        end = _fitting(line, width)
        space = line.rfind(" ", 0, end + 1)
        if space > 0 and line[:space].strip():
            yield line[:space]
            line = line[space + 1 :]
        else:
            yield line[:end]
            line = line[end:]
    yield line


def _fitting(line: str, width: int) -> int:
    """How many characters fit into so many cells; one at least."""
    used = 0
    for place, char in enumerate(line):
        used += cells(char)
        if used > width:
            return max(place, 1)
    return len(line)


def cells(text: str) -> int:
    """The columns that a terminal takes for a text: two for wide characters, none for marks and joiners."""
    return sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    if char in JOINERS or unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
