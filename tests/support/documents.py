"""What README and docs tell a reader to type: commands, Python, configs and data rows, taken from their code blocks."""

import re
import shlex
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "data").glob("*/README.md")),
    ]
}
"""Path from the root -> text."""


def blocks(text: str, language: str) -> list[str]:
    """The contents of a document's fenced blocks of a language, those inside lists too."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def commands(text: str) -> list[list[str]]:
    """Every `python -m lightning_bnf ...` of a document's bash blocks, in order, as the words after `lightning_bnf`."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[3:] for line in lines if line.startswith("python -m lightning_bnf")]


def named(text: str, language: str) -> dict[str, str]:
    """Blocks whose first line is a comment with a file name -> their contents."""
    found = {}
    for block in blocks(text, language):
        name = re.match(r"# (\S+\.\w+)\n", block)
        if name:
            found[name[1]] = block
    return found
