"""The command cache: its help, and what it leaves. The cache itself is in policies/reference/test_cached.py."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import help_of, refused

from lightning_bnf.cli.main import main


def test_help_shows_what_the_cache_depends_on(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys, "cache")
    for name in ("model.reference_cache", "data.train", "trainer.precision", "trainer.strategy"):
        assert f" --{name} " in shown
    assert not any(f" --trainer.{name}" in shown for name in ("max_steps", "logger", "callbacks"))


@pytest.mark.slow
def test_a_run_that_is_there_is_left_alone(
    tmp_path: Path, config: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither moved aside nor written over."""
    main(["fit", "--config", config(model__loss="DPO", trainer__max_epochs=1)])
    run = tmp_path / "run"
    held = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    main(["cache", "--config", config(model__loss="DPO"), "--model.reference_cache", str(tmp_path / "cache")])
    assert f"completions in {tmp_path / 'cache'}" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == held
    assert not (tmp_path / "run.1").exists()


def test_a_loss_without_a_reference_is_refused(config: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "cache", "--config", config(model__loss="SFT"))
    assert "SFT" in message
    assert "reference" in message
