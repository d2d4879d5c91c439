"""The command cache: its help, and what it leaves. The cache itself is in policies/reference/test_cached.py."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import help_of, refused

from lightning_bnf.cli.main import main
from lightning_bnf.policies.reference.cached import CachedReference


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


@pytest.mark.slow
def test_a_second_user_runs_no_reference(
    tmp_path: Path, config: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pushes, another pulls: nothing is computed there; with another base it is refused before it would be."""
    file, shared = config(model__loss="DPO"), str(tmp_path / "shared")
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", str(tmp_path / "first"))
    main(["cache", "--config", file, "--push", shared])
    assert f"20 of 20 completions added to {shared}" in capsys.readouterr().out
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", str(tmp_path / "second"))
    monkeypatch.setattr(CachedReference, "_fill", None)
    main(["cache", "--config", file, "--pull", shared])
    assert "20 of 20 completions of" in capsys.readouterr().out
    main(["fit", "--config", file, "--model.reference", "cache", "--trainer.max_steps", "1"])
    message = refused(capsys, "cache", "--config", file, "--pull", shared, "--model.policy.init_args.dtype", "bfloat16")
    assert "made for another reference" in message
