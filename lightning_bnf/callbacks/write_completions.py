"""Writes what `predict` generates."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info


class WriteCompletions(BasePredictionWriter):
    """Appends each batch of completions to `predictions_<rank>.jsonl` in the run folder as soon as it is there."""

    def __init__(self) -> None:
        super().__init__(write_interval="batch")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        path = self._path(trainer)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        rank_zero_info(f"Completions go to {path}")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """One line for each completion."""
        with self._path(trainer).open("a") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in prediction)

    @staticmethod
    def _path(trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / f"predictions_{trainer.global_rank}.jsonl"
