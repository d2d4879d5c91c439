"""SIGTERM: the run saves, exports nothing half, and ends."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from support.training import FAST, Write, train

from lightning_bnf.callbacks import EvenValidations, GracefulShutdown
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy


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
    """All is saved by then: minutes of completions may be ended. Python's own handler of Ctrl-C is set, as a shell that
    starts the tests in the background has it ignored."""
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
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
        signal.signal(signal.SIGINT, ours)


class Told(Callback):
    """Sends SIGTERM in the second batch of the validation after a step, and keeps what is measured."""

    def __init__(self, step: int | None):
        self.step = step
        self.measured: list[tuple[int, dict[str, float]]] = []

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *given: Any) -> None:
        if trainer.global_step == self.step and trainer.fit_loop.epoch_loop.val_loop.batch_progress.current.ready == 2:
            signal.raise_signal(signal.SIGTERM)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        held = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self.measured.append((trainer.global_step, held))


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 5, 7])
def test_a_validation_that_is_ended_is_begun_anew(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, step: int
) -> None:
    """Two epochs of five steps, each with validations of five batches after steps 2 and 5: the run that goes on
    measures what the whole one does, and ends with its weights."""

    def run(folder: Path, told: Told, checkpoint: Path | None = None) -> dict[str, torch.Tensor]:
        seed_everything(3, verbose=False)
        module = PreferenceModule(LoRAPolicy(tiny_folder, r=2), BNF(), optimization=FAST)
        data = PreferenceData(write_pairs(), write_pairs("v.jsonl"), examples_per_step=1, max_tokens=100)
        callbacks = [EvenValidations(), GracefulShutdown(str(folder)), told]
        train(folder, module, data, checkpoint, callbacks=callbacks, val_check_interval=0.5)
        return {name: value.clone() for name, value in module.policy.trainable().items()}

    whole, first, second = Told(None), Told(step), Told(None)
    wanted = run(tmp_path / "whole", whole)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "run", first)
    assert stop.value.code == 143
    found = run(tmp_path / "run", second, tmp_path / "run" / f"step={step}.ckpt")
    assert [at for at, _ in whole.measured] == [2, 5, 7, 10]
    assert first.measured + second.measured == whole.measured
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())
