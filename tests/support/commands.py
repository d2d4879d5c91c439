"""Commands as users type them."""

import pytest

from lightning_bnf.cli.main import main


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a refused command prints on standard error, checked to end with status 2."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == 2
    return capsys.readouterr().err
