"""Writes the trained policy as a folder that transformers, peft and vLLM load."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.export.card import Trained, data_fingerprint, model_card
from lightning_bnf.export.folders import MAX_SHARD_SIZE, check_shard_size, whole_weights, write_policy
from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.ownership import foreign, move_aside
from lightning_bnf.training.checks import stop_not_finite_weights
from lightning_bnf.training.optimizers import trained_part


class ExportPolicy(Callback):
    """Writes `policy/` in the run folder with every checkpoint and when training ends: a peft folder, or a
    `save_pretrained` folder, with tokenizer, chat template and card. It is the policy of the latest checkpoint, and
    written after it: what keeps a folder from being written must not cost the checkpoint, nor the run.
    """

    def __init__(
        self,
        folder: str = "policy",
        max_shard_size: str = MAX_SHARD_SIZE,
        dtype: Literal["trained", "bfloat16"] = "trained",
    ):
        """
        Args:
            folder: Name of the folder inside the run folder.
            max_shard_size: Largest size of a file of full weights, such as 5GB.
            dtype: Type of what was trained: as it was trained, which is float32 where the optimizer has float32
                masters of weights of 16 bits too; or rounded to `bfloat16`, half as large, which keeps some of the
                change alone where the learning rate is small.
        """
        self.dtype = torch.bfloat16 if dtype == "bfloat16" else None
        self.folder = folder
        self.max_shard_size = check_shard_size(max_shard_size)
        self._exported: int | None = None
        self._due = False
        self._data = ""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._due = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """With the weights that the checkpoint has: no step lies between."""
        if not self._due:
            return
        try:
            self._export(trainer, pl_module)
        except OSError as error:  # of this rank alone, which has gathered its part with the others before
            rank_zero_warn(f"{self.folder}/ could not be written ({error}); the run goes on, its checkpoint is saved")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._due or self._exported != trainer.global_step:
            self._export(trainer, pl_module)
        rank_zero_info(f"The aligned model is in {Path(trainer.default_root_dir) / self.folder}")

    def _export(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, PreferenceModule)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PreferenceData)
        self._due = False
        stop_not_finite_weights(trainer.global_step, pl_module.policy.trainable())
        trained = partial(trained_part, trainer.optimizers[0]) if trainer.optimizers else None
        weights = whole_weights(pl_module.policy, trainer.is_global_zero, trained, self.dtype)
        if trainer.is_global_zero:
            self._data = self._data or data_fingerprint(data.split("train"))  # the same at every save, and not free
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            about = Trained(trainer.global_step, self._data, str(trainer.precision), metrics)
            target = Path(trainer.default_root_dir) / self.folder
            if changed := foreign(target):  # a refusal would cost the run
                aside = move_aside(target)
                rank_zero_info(f"{target} held files that were not exported ({changed[0]}): it is now {aside}")
            write_policy(pl_module.policy, weights, model_card(pl_module, data, about), target, self.max_shard_size)
        self._exported = trainer.global_step
