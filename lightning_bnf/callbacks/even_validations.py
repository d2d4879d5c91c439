"""Validations at equal parts of an epoch, the last at its end."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class EvenValidations(Callback):
    """Makes a `val_check_interval` that is a fraction mean what it says: 0.25 is after a quarter of the epoch's steps,
    a half, three quarters, and after the last.

    Lightning rounds a quarter of 30 steps down to 7, validates after 7, 14, 21 and 28, and what is trained after that
    is neither validated nor in a checkpoint. Whole numbers and times of `val_check_interval` stay as they are.
    """

    def __init__(self) -> None:
        self._after: set[int] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that is gone on with in the middle of an epoch does not start that epoch again. Lightning asks whether
        the checkpoint's step was validated, and trains past the end of a finished run where it thinks it was not."""
        self._plan(trainer)
        done = int(trainer.fit_loop.epoch_loop.batch_progress.current.ready)
        if self._after and done:
            trainer.val_check_batch = done if done in self._after else int(trainer.num_training_batches) + 1

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._plan(trainer)

    def _plan(self, trainer: Trainer) -> None:
        interval, steps = trainer.val_check_interval, int(trainer.num_training_batches)
        if trainer.max_steps >= 0:
            steps = min(steps, trainer.max_steps - trainer.current_epoch * steps)
        even = isinstance(interval, float) and interval < 1 and trainer.check_val_every_n_epoch == 1
        self._after = validated_steps(steps, interval) if even else set()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._after:  # Lightning validates where the step's number can be divided by this
            never = int(trainer.num_training_batches) + 1
            trainer.val_check_batch = batch_idx + 1 if batch_idx + 1 in self._after else never


def validated_steps(steps: int, interval: float) -> set[int]:
    """The steps (from 1) that are followed by a validation: `interval` of all and its multiples, and the last.

    >>> sorted(validated_steps(30, 0.25))
    [8, 15, 22, 30]
    """
    parts = max(1, round(1 / interval))
    return {max(1, round(steps * part / parts)) for part in range(1, parts + 1)}
