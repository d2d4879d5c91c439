"""The table of losses is made from the classes, and what is stored is what the command prints."""

import inspect
import re
from pathlib import Path

import pytest

from lightning_bnf import losses
from lightning_bnf.cli.main import main
from lightning_bnf.losses.table import as_markdown, table

ROOT = Path(__file__).parents[2]


def test_every_loss_is_in_it_with_equation_and_paper() -> None:
    entries = {entry.name: entry for entry in table()}
    assert set(entries) == {
        name
        for name in losses.__all__
        if isinstance(getattr(losses, name), type)
        and issubclass(getattr(losses, name), losses.Loss)
        and not inspect.isabstract(getattr(losses, name))
    }
    for entry in entries.values():
        assert entry.equation[0].startswith("L = "), entry.name
        assert entry.paper or entry.name == "Sum", entry.name
    assert entries["DPO"].arguments == {"beta": 0.1, "label_smoothing": 0.0}
    assert entries["DPO"].needs == ("pairs", "reference")
    assert entries["SimPO"].needs == ("pairs",)
    assert entries["KTO"].needs == ("reference", "a pass over the step")
    assert entries["MADPO"].needs == ("pairs", "reference", "reward")
    assert entries["BCO"].needs == ("reference", "state")


def test_every_argument_stands_on_the_losss_page() -> None:
    for entry in table():
        for name in entry.arguments:
            assert name in entry.doc, (entry.name, name)


def test_the_stored_table_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main(["losses", "--format", "markdown"])
    printed = capsys.readouterr().out.strip()
    assert printed == as_markdown(table())
    assert printed in (ROOT / "configs/loss/README.md").read_text()


def test_the_command_prints_all_losses_or_the_page_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    main(["losses"])
    text = capsys.readouterr().out
    assert "SPO  (arXiv 2508.07137)" in text or "2508.07137" in text
    assert "needs pairs, reference; beta=0.1, label_smoothing=0.0" in text
    main(["losses", "--names", "[IPO]"])
    page = capsys.readouterr().out
    assert page.startswith("IPO\n\nIdentity Preference Optimization")
    assert "length_normalize" in page
    with pytest.raises(SystemExit):
        main(["losses", "--names", "[IPA]"])
    assert re.search("names must be one of BNF, .*, got 'IPA'", capsys.readouterr().err)
