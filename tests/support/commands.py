"""Commands as users type them."""

import pytest

from lightning_bnf.cli.main import main


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a refused command prints on standard error, checked to end with status 2."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == 2
    return capsys.readouterr().err


def help_of(capsys: pytest.CaptureFixture[str], command: str) -> str:
    """What a command's --help prints, each run of white space as one space."""
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code in (0, None)
    return " ".join(capsys.readouterr().out.split())
