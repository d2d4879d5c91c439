"""A run that is told to end: it saves, and it ends."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_bnf.runtime.processes import end_now, end_with_parent

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOPPING = b"\nCtrl-C: a checkpoint is saved after this step, then the run stops; once more stops at once\n"


class GracefulShutdown(Callback):
    """Saves a checkpoint after the step or the validation batch at hand and ends when a rank gets SIGTERM, as SLURM
    sends it before it takes a node away, with status 143, or Ctrl-C, with status 130; a second Ctrl-C ends at once. A
    validation that was not finished is begun anew by the run that goes on.
    """

    def __init__(self, folder: str):
        """
        Args:
            folder: Where the checkpoint is saved, as `step=N.ckpt`.
        """
        self.folder = folder
        self._told: int | None = None
        self._speaks = True
        self._saved: Path | None = None
        self._previous: dict[int, Any] = {}
        self._training = False

    @property
    def told(self) -> bool:
        """Whether this rank was told to end: what takes long within a step is to stop then."""
        return self._told is not None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's own handler would talk to the other ranks in the middle of a step: ours waits for its end."""
        self._speaks = trainer.is_global_zero
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._tell) for number in SIGNALS}
        self._training = True
        launched = getattr(trainer.strategy, "launcher", None)
        if trainer.world_size > 1 and trainer.local_rank > 0 and launched is not None:
            end_with_parent()

    def _tell(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._told == number:
                raise KeyboardInterrupt
            if self._speaks:
                os.write(2, STOPPING)  # a print could meet another one that was interrupted
        self._told = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._told = self._any_told(trainer, pl_module)
        if self._told:
            self._save(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """In a validation of a fit. What is saved stands within its first batch, whichever is at hand, so that all of
        them are measured when the run goes on."""
        if not self._training:
            return
        self._told = self._any_told(trainer, pl_module)
        if self._told:
            progress: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            before = progress.total.completed - progress.current.completed
            for counts, done in ((progress.current, 0), (progress.total, before)):
                counts.ready, counts.started, counts.processed, counts.completed = done + 1, done + 1, done, done
            self._save(trainer)
            self._stop(self._told)

    def _save(self, trainer: Trainer) -> None:
        """Also over one of that name: it may be what a crash has left broken. And with the optimizer's state."""
        self._saved = Path(self.folder) / f"step={trainer.global_step}.ckpt"
        trainer.save_checkpoint(self._saved, weights_only=False)

    def _stop(self, told: int) -> None:
        name = signal.Signals(told).name
        rank_zero_info(f"{name}: saved {self._saved} and stopped; go on with --ckpt_path last")
        raise SIGTERMException(128 + told)  # what a shell and a queue take as: ended by this signal

    def _any_told(self, trainer: Trainer, pl_module: LightningModule) -> int | None:
        """The signal that any rank was told by; one device is not waited for."""
        if trainer.world_size == 1:
            return self._told
        told = torch.tensor(float(self._told or 0), device=pl_module.device)
        return int(trainer.strategy.reduce(told, reduce_op="max").item()) or None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Only now are the metrics of the step before it written."""
        if self._saved is not None and self._told is not None:
            self._stop(self._told)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on all is saved: what is still done, such as completions, is ended at once."""
        self._training = False
        if self._previous:
            signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
            signal.signal(signal.SIGTERM, end_now)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
