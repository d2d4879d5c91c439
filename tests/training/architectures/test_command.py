"""The command `models`: the stored table, and rows that are made anew."""

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_bnf.cli.main import main
from lightning_bnf.training.architectures.table import Architecture, read_table


def test_the_command_prints_rows_and_refuses_names_that_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models", "--names", "[llama, mamba]"])
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split() == ["llama", "shared_prompt,", "packed,", "padded"]
    assert "mamba" in printed
    assert "of 2 architectures" in printed
    with pytest.raises(SystemExit):
        main(["models", "--names", "[lama]"])
    assert "names must be of " in capsys.readouterr().err


def test_rows_are_made_anew_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["models", "--names", "[llama]", "--check", "true", "--output", str(tmp_path / "table.json")])
    (row,) = read_table(tmp_path / "table.json").rows
    assert row == Architecture("llama", ("shared_prompt", "packed", "padded"), "")


def test_the_stored_table_is_printed_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from lightning_bnf.cli.main import main; main(['models', '--names', '[llama]'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("llama ")
