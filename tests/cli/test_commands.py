"""The table of commands: it says of each what the command says of itself, and nothing is imported to read it."""

import inspect
import subprocess
import sys
from importlib.metadata import version

import pytest

from lightning_bnf.cli.commands import COMMANDS, TRAINER_COMMANDS, imported, overview
from lightning_bnf.cli.main import main
from lightning_bnf.cli.trainer_commands import TrainerCommand

HEAVY = {"torch", "lightning", "transformers", "jsonargparse", "numpy", "pandas", "yaml"}


def in_a_new_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_is_the_docstrings_first_line(name: str) -> None:
    described = imported(COMMANDS[name].target)
    assert (inspect.getdoc(described) or "").split("\n")[0] == COMMANDS[name].summary
    if name in TRAINER_COMMANDS:
        assert issubclass(described, TrainerCommand)


def test_the_overview_lists_every_command() -> None:
    for name, command in COMMANDS.items():
        assert f"\n  {name} " in overview()
        assert command.summary in overview()


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"lightning_bnf {version('lightning_bnf')}\n"


@pytest.mark.parametrize("word", ["--help", "fti"])
def test_nothing_heavy_is_imported_before_the_command_is_known(word: str) -> None:
    run = in_a_new_process(
        "import sys; from lightning_bnf.cli.main import main\n"
        f"try: main([{word!r}])\n"
        f"finally: print('imported:', *sorted({HEAVY!r} & set(sys.modules)))"
    )
    assert run.stdout.endswith("imported:\n"), run.stdout[-200:]
    assert "near_duplicates" in run.stdout + run.stderr


@pytest.mark.parametrize("name", ["fit", "losses", "export"])
def test_the_first_line_comes_before_the_imports(name: str) -> None:
    """With torch made impossible to import, it is there all the same; on standard error, and once a run."""
    code = f"import sys; sys.modules['torch'] = None\nfrom lightning_bnf.cli.main import main; main([{name!r}])"
    run = in_a_new_process(code)
    assert run.stderr.startswith(f"lightning_bnf 0.1.0: {name}; ")
    assert "torch must be installed" in run.stderr
    assert run.stdout == ""
    rank = in_a_new_process(f"import os; os.environ['LOCAL_RANK'] = '1'\n{code}")
    assert "lightning_bnf 0.1.0" not in rank.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["plan", "--help"]])
def test_the_command_line_starts_where_there_is_no_resource(words: list[str]) -> None:
    """Windows has no module `resource`."""
    code = "import sys; sys.modules['resource'] = None\n"
    run = in_a_new_process(f"{code}from lightning_bnf.cli.main import main; main({words!r})")
    assert run.returncode == 0, run.stderr[-2000:]
    assert "usage: python -m lightning_bnf" in run.stdout
