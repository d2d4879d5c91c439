"""Writes what `predict` generates."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info


class WriteCompletions(Callback):
    """Appends each batch of completions to `predictions_<rank>.jsonl` in the run folder as soon as it is there."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        path = self._path(trainer)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        rank_zero_info(f"Completions go to {path}")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        with self._path(trainer).open("a") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in outputs)

    @staticmethod
    def _path(trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / f"predictions_{trainer.global_rank}.jsonl"
