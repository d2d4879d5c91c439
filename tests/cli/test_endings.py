"""A command that ends early says a sentence, or that it is a bug and how to report it; never both."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_bnf
from lightning_bnf.cli.endings import end
from lightning_bnf.cli.main import main
from lightning_bnf.runtime.refusal import Refusal


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Refusal("beta must be > 0, got \x1b[2J"), "error: beta must be > 0, got \\x1b[2J\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/disk/run/x"),
            "error: /disk/run/x cannot be used (No space left on device); what was finished before is kept\n",
        ),
    ],
    ids=["refusal", "full disk"],
)
def test_what_a_user_can_mend_is_a_sentence(
    error: Exception, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        end(error)
    assert (stop.value.code, capsys.readouterr().err) == (2, sentence)


@pytest.mark.parametrize("error", [ValueError("x"), FileNotFoundError(errno.ENOENT, "no", "ours")], ids=repr)
def test_a_bug_keeps_its_traceback_and_says_how_to_report_it(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def verb() -> None:
        raise error

    monkeypatch.setattr("lightning_bnf.losses.table.print_losses", verb)
    with pytest.raises(type(error)) as raised:
        main(["losses"])
    (note,) = raised.value.__notes__
    assert "this is a bug of lightning_bnf 0.1.0: please report it" in note
    assert "torch 2." in note


def test_a_python_without_the_packages_is_named() -> None:
    """The system's own, where the environment was not activated: -S leaves out all that is installed."""
    root = Path(lightning_bnf.__file__).parents[1]
    command = [sys.executable, "-S", "-m", "lightning_bnf", "fit"]
    found = subprocess.run(command, cwd=root, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    _, said = found.stderr.splitlines()
    named = f"torch, lightning, transformers, peft, jsonargparse must be installed for {sys.executable}, which has none"
    assert said.startswith(f"error: {named}; a clone's `make setup`")


@pytest.mark.slow
def test_a_reader_who_goes_away_ends_a_command_quietly() -> None:
    """`losses | head -0`: status 141, as a shell shows of other programs, and nothing on standard error."""
    command = [sys.executable, "-m", "lightning_bnf", "losses"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 141
    assert said.splitlines()[1:] == [], "the line on loading alone"
