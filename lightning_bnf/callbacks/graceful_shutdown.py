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

STATUS = 128 + signal.SIGTERM  # what a shell and a queue take as: ended by SIGTERM


class GracefulShutdown(Callback):
    """Saves a checkpoint after the step at hand and ends with status 143 when a rank gets SIGTERM, as SLURM sends it
    before it takes a node away; and ends a rank whose first process on the node has died, which would wait for ever.
    """

    def __init__(self, folder: str):
        """
        Args:
            folder: Where the checkpoint is saved, as `step=N.ckpt`.
        """
        self.folder = folder
        self._told = False
        self._saved: Path | None = None
        self._previous: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's own handler would talk to the other ranks in the middle of a step: ours waits for its end."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._tell)
        launched = getattr(trainer.strategy, "launcher", None)
        if trainer.world_size > 1 and trainer.local_rank > 0 and launched is not None:
            threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self._told = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._any_told(trainer, pl_module):
            self._saved = Path(self.folder) / f"step={trainer.global_step}.ckpt"
            trainer.save_checkpoint(self._saved)  # also over one of that name: it may be what a crash has left broken

    def _any_told(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Whether any rank was told; one device is not waited for."""
        if trainer.world_size == 1:
            return self._told
        told = torch.tensor(float(self._told), device=pl_module.device)
        return bool(trainer.strategy.reduce(told, reduce_op="max").item())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Only now are the metrics of the step before it written."""
        if self._saved is not None:
            rank_zero_info(f"SIGTERM: saved {self._saved} and stopped; go on with --ckpt_path last")
            raise SIGTERMException(STATUS)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None


def _end_with_parent(parent: int, seconds: float = 5.0) -> None:
    while os.getppid() == parent:
        threading.Event().wait(seconds)
    print(f"the first process of this node ({parent}) has died, so this one ends", flush=True)
    os._exit(1)
