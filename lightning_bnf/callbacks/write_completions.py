"""Writes what `predict` generates."""

import json
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_bnf.runtime.files import append, writing
from lightning_bnf.runtime.ownership import keep_earlier


class WriteCompletions(Callback):
    """Writes every batch of completions as soon as it is there. Once it is whole the file is `predictions_<rank>.jsonl`
    in the run folder; until then that of an earlier run stays, which then gets a number."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        path = self._path(trainer)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._unfinished(path).write_bytes(b"")
        rank_zero_info(f"Completions go to {self._unfinished(path)}, which is {path.name} when all are there")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in outputs]
        append(self._unfinished(self._path(trainer)), "".join(lines).encode())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        path = self._path(trainer)
        with writing(path):
            keep_earlier(path)
            os.replace(self._unfinished(path), path)

    @staticmethod
    def _path(trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / f"predictions_{trainer.global_rank}.jsonl"

    @staticmethod
    def _unfinished(path: Path) -> Path:
        return path.with_name(f"{path.stem}.unfinished.jsonl")
