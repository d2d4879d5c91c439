"""Every refusal of an input is a Refusal, so that the command line can tell it from a bug."""

import ast
import re
from pathlib import Path

import pytest

FORMER = r"accepted (is|are)\b|[:;] accepted"
PACKAGE = Path(__file__).parents[2] / "lightning_bnf"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_raises_a_plain_value_error(path: Path) -> None:
    raised = (node.exc for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise) and node.exc)
    plain = [error.lineno for error in raised if "ValueError" in (ast.unparse(error).split("(")[0],)]
    assert not plain, f"lines {plain}: raise Refusal, which the command line prints as a sentence"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_refusals_have_one_form(path: Path) -> None:
    """What must be, and what was got instead; not what is "accepted", which was said in three other ways before."""
    former = [i for i, line in enumerate(path.read_text().splitlines(), 1) if re.search(FORMER, line)]
    assert not former, f"lines {former}: <argument> must be <what is accepted>, got <value>"
