"""Every refusal of an input is a Refusal, so that the command line can tell it from a bug."""

import ast
import re
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from lightning_bnf.runtime.refusal import Refusal, refusing

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


class Own(Refusal):
    pass


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (KeyError("a"), Own, r"^x must be y, got z \(KeyError: 'a'\)$"),
        (OSError("of\n  two lines"), Own, r"^x must be y, got z \(OSError: of two lines\)$"),
        (RuntimeError(), Own, r"^x must be y, got z \(RuntimeError\)$"),
        (Refusal("beta must be > 0, got -1"), Refusal, r"^beta must be > 0, got -1$"),
        (MemoryError("full"), MemoryError, "^full$"),
        (KeyboardInterrupt("now"), KeyboardInterrupt, "^now$"),
    ],
)
def test_what_libraries_raise_is_a_sentence(raised: BaseException, kind: type[BaseException], message: str) -> None:
    """But refusals, which are one already, memory that runs out, and what ends the program."""
    with pytest.raises(kind, match=message) as caught, refusing("x must be y, got z", Own):
        raise raised
    assert type(caught.value) is kind


def test_a_notebook_shows_the_sentence_alone(capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell()
    shell.run_cell("from lightning_bnf.runtime.refusal import Refusal\nraise Refusal('beta must be > 0, got -1')")
    assert capsys.readouterr().out == "Refusal: beta must be > 0, got -1\n"
