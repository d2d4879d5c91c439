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
    trainer: Any = SimpleNamespace(world_size=1, global_step=4, save_checkpoint=saved.append, strategy=None)
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
