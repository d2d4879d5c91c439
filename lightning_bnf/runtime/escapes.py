"""Texts of strangers on terminals and in Markdown: what would be obeyed there is shown instead."""

import unicodedata

JOINERS = "\u200c\u200d"  # what Persian and families of emoji are written with
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, formats such as right-to-left overrides, surrogates, separators


def visible(text: str) -> str:
    """`text` with all that a terminal would obey instead of show written out, as `\\x1b`; line breaks stay and tabs
    become spaces."""
    shown = (char if char in f"\n\t{JOINERS}" or not _is_hidden(char) else _written(char) for char in text)
    return "".join(shown).expandtabs(4)


def in_one_line(text: str) -> str:
    """As `visible`, with line breaks and tabs written out too: for names and cells."""
    return "".join(char if char in JOINERS or not _is_hidden(char) else _written(char) for char in text)


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN


def _written(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode()
