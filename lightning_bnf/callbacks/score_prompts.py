"""Verified completions while a policy trains, and when it is trained."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.evaluation.comparison import choose
from lightning_bnf.evaluation.pass_rates import Record, VerifiedPrompt, complete_and_verify, verified_prompts
from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.strategies import refuse_sharded

Split = Literal["validation", "test"]


class ScorePrompts(Callback):
    """Scores prompts that carry verifiers: a few every so many steps (`val/pass_rate`, greedy), and more at the end.

    Writes `scores.json`: for each split one record per prompt and way of decoding.
    """

    def __init__(
        self,
        splits: Sequence[Split] = ("validation", "test"),
        trained_prompts: int | None = None,
        kept_out_prompts: int | None = None,
        every_n_steps: int | None = None,
        watched_prompts: int = 20,
        temperature: float = 0.0,
        seed: int = 1,
        batch_size: int = 128,
    ):
        """
        Args:
            splits: Splits of the data whose prompts are scored at the end.
            trained_prompts: Prompts of trained families, of each split, from the families in turn; null takes all.
            kept_out_prompts: The same of families that are kept out of training.
            every_n_steps: Optimizer steps between two scorings of validation prompts; null never does.
            watched_prompts: How many of them.
            temperature: Of sampled completions beside the greedy ones at the end; 0 samples none.
            seed: Of the sampled completions.
            batch_size: Completions generated together.
        """
        for split in splits:
            if split not in ("validation", "test"):
                raise Refusal(f"splits {split!r}: accepted are validation and test")
        if every_n_steps is not None and every_n_steps < 1:
            raise Refusal(f"every_n_steps {every_n_steps}: accepted are whole numbers from 1, and null")
        self.splits = tuple(splits)
        self.trained_prompts, self.kept_out_prompts = trained_prompts, kept_out_prompts
        self.every_n_steps, self.watched_prompts = every_n_steps, watched_prompts
        self.temperature, self.seed, self.batch_size = temperature, seed, batch_size
        self._watched: list[VerifiedPrompt] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        refuse_sharded(trainer.strategy, "callback ScorePrompts")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_steps is not None:
            self._watched = choose(self._prompts(trainer, "validation"), self.watched_prompts, 0)
            if not self._watched:
                raise Refusal(
                    "callback ScorePrompts, every_n_steps: no validation row of a trained family carries a "
                    "verifier; accepted: data.validation with verifiers, or every_n_steps null"
                )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            records = self._complete(pl_module, self._watched, 0.0, None)
            pl_module.log("val/pass_rate", sum(record.passed for record in records) / len(records))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        scores = {}
        for split in self.splits:
            prompts = choose(self._prompts(trainer, split), self.trained_prompts, self.kept_out_prompts)
            records = self._complete(pl_module, prompts, self.temperature, f"Completions of {split} prompts")
            scores[split] = [asdict(record) for record in records]
        (Path(trainer.default_root_dir) / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")

    def _complete(
        self, pl_module: LightningModule, prompts: Sequence[VerifiedPrompt], temperature: float, progress: str | None
    ) -> list[Record]:
        assert isinstance(pl_module, PreferenceModule)
        policy = pl_module.policy
        return complete_and_verify(
            policy.loaded, policy.tokenizer, prompts, temperature, self.seed, self.batch_size, progress
        )

    @staticmethod
    def _prompts(trainer: Trainer, split: str) -> list[VerifiedPrompt]:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, PreferenceData):
            raise Refusal("callback ScorePrompts: accepted is PreferenceData as the run's data")
        return verified_prompts(data.split(split))
