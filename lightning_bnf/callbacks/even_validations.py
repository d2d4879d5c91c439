"""Validations at equal parts of an epoch, and after the last step of a run."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class EvenValidations(Callback):
    """Makes a `val_check_interval` that is a fraction mean what it says: 0.25 is after a quarter of the epoch's steps,
    a half, three quarters, and after the last. And whatever the interval, the last step of a run is validated, so that
    the checkpoint, the curves and the card are of the model that is exported.

    Lightning rounds a quarter of 30 steps down to 7, validates after 7, 14, 21 and 28, and what is trained after that
    is neither validated nor in a checkpoint; nor is what comes after the last multiple of a whole number, or the last
    epoch that `check_val_every_n_epoch` divides.
    """

    def __init__(self) -> None:
        self._after: set[int] = set()
        self._own: tuple[Any, Any] = (1, 1)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that is gone on with in the middle of an epoch does not start that epoch again. Lightning asks whether
        the checkpoint's step was validated, and trains past the end of an epoch where it thinks it was not."""
        self._own = trainer.check_val_every_n_epoch, trainer.val_check_batch
        self._plan(trainer)
        done = int(trainer.fit_loop.epoch_loop.batch_progress.current.ready)
        if done in self._after or done >= trainer.num_training_batches or (done and _ends(trainer, 0, done)):
            _validate_after(trainer, done)
        elif done:
            self._leave(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._plan(trainer)

    def _plan(self, trainer: Trainer) -> None:
        """Of an epoch that `max_steps` cuts short; the first is all of the run, and has all validations of an epoch."""
        interval, whole = trainer.val_check_interval, int(trainer.num_training_batches)
        even = isinstance(interval, float) and interval < 1 and trainer.check_val_every_n_epoch == 1
        before = trainer.current_epoch * whole
        steps = min(whole, trainer.max_steps - before) if trainer.max_steps >= 0 else whole
        spread = whole if before else steps
        self._after = {min(step, steps) for step in validated_steps(spread, interval)} if even else set()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 in self._after or _ends(trainer, 1, batch_idx + 1):
            _validate_after(trainer, batch_idx + 1)
        else:
            self._leave(trainer)

    def _leave(self, trainer: Trainer) -> None:
        """To Lightning, where the interval is no fraction."""
        trainer.check_val_every_n_epoch, trainer.val_check_batch = self._own
        if self._after:
            trainer.val_check_batch = int(trainer.num_training_batches) + 1

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.check_val_every_n_epoch, trainer.val_check_batch = self._own


def _ends(trainer: Trainer, more: int, batches: int) -> bool:
    """Whether a run is at its end after so many more steps, and so many batches of the epoch at hand."""
    epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    last = 0 <= epochs <= trainer.current_epoch + 1 and batches >= trainer.num_training_batches
    return last or 0 <= trainer.max_steps <= trainer.global_step + more


def _validate_after(trainer: Trainer, batches: int) -> None:
    """Lightning validates in epochs that the one can be divided by, where the batch's number can be by the other."""
    trainer.check_val_every_n_epoch, trainer.val_check_batch = 1, batches


def validated_steps(steps: int, interval: float) -> set[int]:
    """The steps (from 1) that are followed by a validation: `interval` of all and its multiples, and the last.

    >>> sorted(validated_steps(30, 0.25))
    [8, 15, 22, 30]
    """
    parts = max(1, round(1 / interval))
    return {max(1, round(steps * part / parts)) for part in range(1, parts + 1)}
