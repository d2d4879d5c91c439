"""SIGTERM: the run saves, exports nothing half, and ends."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_bnf.callbacks import GracefulShutdown


def test_sigterm_saves_over_what_a_crash_left_broken(tmp_path: Path) -> None:
    """A file of the step's name is there already, and is no good: the run that is told to end must not rely on it."""
    (tmp_path / "step=4.ckpt").write_text("cut off")
    saved: list[Path] = []
    trainer: Any = SimpleNamespace(
        world_size=1,
        global_step=4,
        save_checkpoint=lambda path, weights_only: saved.append(path),
        strategy=None,
        is_global_zero=True,
    )
    shutdown = GracefulShutdown(str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    shutdown.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGTERM) != before, "else the signal below would end the tests"
    shutdown.on_train_batch_end(trainer, None, None, None, 3)  # type: ignore[arg-type]
    shutdown.on_train_batch_start(trainer, None, None, 4)  # type: ignore[arg-type]
    assert saved == [], "nobody was told"
    signal.raise_signal(signal.SIGTERM)
    shutdown.on_train_batch_end(trainer, None, None, None, 3)  # type: ignore[arg-type]
    assert saved == [tmp_path / "step=4.ckpt"]
    with pytest.raises(SystemExit) as stop:
        shutdown.on_train_batch_start(trainer, None, None, 4)  # type: ignore[arg-type]
    assert stop.value.code == 143
    shutdown.teardown(trainer, None, "fit")  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGTERM) == before


def test_ctrl_c_saves_and_a_second_one_ends_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved: list[Path] = []
    trainer: Any = SimpleNamespace(
        world_size=1,
        global_step=7,
        save_checkpoint=lambda path, weights_only: saved.append(path),
        strategy=None,
        is_global_zero=True,
    )
    shutdown = GracefulShutdown(str(tmp_path))
    before = signal.getsignal(signal.SIGINT)
    shutdown.on_train_start(trainer, None)  # type: ignore[arg-type]
    try:
        signal.raise_signal(signal.SIGINT)
        assert "a checkpoint is saved after this step" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        shutdown.on_train_batch_end(trainer, None, None, None, 6)  # type: ignore[arg-type]
        assert saved == [tmp_path / "step=7.ckpt"]
        with pytest.raises(SystemExit) as stop:
            shutdown.on_train_batch_start(trainer, None, None, 7)  # type: ignore[arg-type]
        assert stop.value.code == 130
    finally:
        shutdown.teardown(trainer, None, "fit")  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGINT) == before


def test_after_training_both_end_at_once(tmp_path: Path) -> None:
    """All is saved by then: minutes of completions may be ended."""
    trainer: Any = SimpleNamespace(world_size=1, strategy=None, is_global_zero=True)
    shutdown = GracefulShutdown(str(tmp_path))
    shutdown.on_train_start(trainer, None)  # type: ignore[arg-type]
    shutdown.on_train_end(trainer, None)  # type: ignore[arg-type]
    try:
        with pytest.raises(SystemExit) as stop:
            signal.raise_signal(signal.SIGTERM)
        assert stop.value.code == 143
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        shutdown.teardown(trainer, None, "fit")  # type: ignore[arg-type]
