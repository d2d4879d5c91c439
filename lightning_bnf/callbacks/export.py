"""Writes the trained policy as a folder that transformers, peft and vLLM load."""

from functools import partial
from pathlib import Path
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.export.card import Trained, data_fingerprint, model_card
from lightning_bnf.export.folders import MAX_SHARD_SIZE, check_shard_size, whole_weights, write_policy
from lightning_bnf.export.rounding import rounding_of
from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.ownership import foreign, move_aside
from lightning_bnf.training.checks import stop_not_finite_weights
from lightning_bnf.training.optimizers import trained_part


class ExportPolicy(Callback):
    """Writes `policy/` in the run folder when training ends: a peft folder, or a `save_pretrained` folder, with
    tokenizer, chat template and card. The checkpoints of a run that is not at its end become one by `export`.
    """

    def __init__(
        self,
        folder: str = "policy",
        max_shard_size: str = MAX_SHARD_SIZE,
        dtype: Literal["auto", "bfloat16", "float32"] = "auto",
    ):
        """
        Args:
            folder: Name of the folder inside the run folder.
            max_shard_size: Largest size of a file of full weights, such as 5GB.
            dtype: Type of what was trained: `auto` writes full weights in bfloat16 where that keeps what was learned
                (the change that is written has a cosine of 0.9 to the trained one), else in float32, and says so;
                adapters, which are small, in float32. `bfloat16` rounds whatever is lost: much, where the learning rate
                is small.
        """
        self.dtype = dtype
        self.folder = folder
        self.max_shard_size = check_shard_size(max_shard_size)
        self._trained = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trained = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, PreferenceModule)
        data, policy = trainer.datamodule, pl_module.policy  # type: ignore[attr-defined]
        assert isinstance(data, PreferenceData)
        from lightning_bnf.results.tables import last_metrics  # pandas, which --help of fit has no use for

        stop_not_finite_weights(trainer.global_step, policy.trainable())
        trained = partial(trained_part, trainer.optimizers[0]) if trainer.optimizers else None
        rounding = rounding_of(policy, self.dtype) if trainer.is_global_zero else None
        weights = whole_weights(policy, trainer.is_global_zero, trained, rounding)
        if not trainer.is_global_zero:
            return
        run, step = Path(trainer.default_root_dir), trainer.global_step
        if not self._trained and step:
            rank_zero_info(f"Nothing was left to train: the checkpoint is of step {step}, the last that was asked for.")
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()} or last_metrics(run, step)
        rounded = None if rounding is None else rounding.text()
        fingerprint = data_fingerprint(data.split("train"))
        about = Trained(step, fingerprint, str(trainer.precision), metrics, rounded=rounded)
        target = run / self.folder
        if changed := foreign(target):  # a refusal would cost the run
            aside = move_aside(target)
            rank_zero_info(f"{target} held files that were not exported ({changed[0]}): it is now {aside}")
        write_policy(policy, weights, model_card(pl_module, data, about), target, self.max_shard_size)
        rank_zero_info(f"The aligned model is in {target}{'' if rounded is None else f', {rounded}'}")
