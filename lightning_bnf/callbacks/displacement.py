"""Watches whether training takes likelihood away from where it should not: displacement and collapse."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import as_rows
from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.arguments import PositiveFloat, PositiveInt, checked
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.refusal import Refusal

KINDS = ("chosen", "rejected", "held_out")


@checked
class DisplacementAlarm(Callback):
    """Measures mean token log-probs (nats) of watched completions and of held-out text while a run trains.

    It says so in one sentence, with the numbers, when chosen and rejected completions have both fallen by `fall` since
    the start, or held-out text by `held_out_fall`; with `stop` the run ends there. Everything measured is in
    `displacement.json` in the run folder, and `displacement/*` are the changes since the start in the logs.
    """

    def __init__(
        self,
        held_out: str | list[str] | None = None,
        rows: PositiveInt = 16,
        every_n_steps: PositiveInt = 10,
        fall: PositiveFloat = 0.1,
        held_out_fall: PositiveFloat = 0.1,
        stop: bool = False,
    ):
        """
        Args:
            held_out: Files of texts (prompt and completion) that have nothing to do with the training data.
            rows: Rows of the validation data, else of the training data, that are watched.
            every_n_steps: Optimizer steps between two measurements.
            fall: What chosen and rejected completions must both have lost for an alarm (> 0, nats a token).
            held_out_fall: What held-out text must have lost for an alarm (> 0, nats a token).
            stop: Whether an alarm ends the run.
        """
        self.held_out = [held_out] if isinstance(held_out, str) else list(held_out or [])
        self.rows, self.every_n_steps = rows, every_n_steps
        self.fall, self.held_out_fall, self.stop = fall, held_out_fall, stop
        self.measured: list[dict[str, float]] = []
        self.alarms: dict[str, str] = {}
        self._watched: list[TokenizedRow] = []
        self._texts: list[TokenizedRow] = []

    def state_dict(self) -> dict[str, Any]:
        return {"measured": self.measured, "alarms": self.alarms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.measured, self.alarms = list(state_dict["measured"]), dict(state_dict["alarms"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, PreferenceData):
            raise Refusal("callback DisplacementAlarm: the run's data must be PreferenceData, got others")
        assert isinstance(pl_module, PreferenceModule)
        policy = pl_module.policy
        self._watched = evenly_spaced(data.split("validation") or data.split("train"), self.rows)
        self._texts = [
            row for path in self.held_out for row in load_rows(path, policy.tokenizer, data.options, policy.end_ids)[0]
        ]
        if not self.measured:
            self._measure(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every_n_steps:
            return
        now = self._measure(trainer, pl_module)
        since = {kind: now[kind] - self.measured[0][kind] for kind in KINDS if kind in now}
        pl_module.log_dict({f"displacement/{kind}": change for kind, change in since.items()})
        for kind, sentence in alarms(since, self.fall, self.held_out_fall).items():
            if kind not in self.alarms:
                self.alarms[kind] = f"step {trainer.global_step}: {sentence}"
                rank_zero_warn(f"displacement alarm, {self.alarms[kind]}")
                trainer.should_stop = trainer.should_stop or self.stop
        self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Mean token log-probs of each kind that is watched, averaged over its completions."""
        assert isinstance(pl_module, PreferenceModule)
        means = pl_module.mean_logps([*self._watched, *self._texts], trainer.datamodule.budget.max_tokens)  # type: ignore[attr-defined]
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for row, values in zip(self._watched, means):
            for completion, value in zip(row.completions, values):
                found["chosen" if completion.label > 0 else "rejected"].append(value)
        found["held_out"] = [value for values in means[len(self._watched) :] for value in values]
        averages = {kind: math.fsum(values) / len(values) for kind, values in found.items() if values}
        self.measured.append({"step": trainer.global_step, **averages})
        return averages

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            bounds = {"fall": self.fall, "held_out_fall": self.held_out_fall}
            record = {"unit": "nats a token", "bounds": bounds, "measured": self.measured, "alarms": self.alarms}
            write_text(Path(trainer.default_root_dir) / "displacement.json", json.dumps(record, indent=1) + "\n")


def alarms(since: dict[str, float], fall: float, held_out_fall: float) -> dict[str, str]:
    """The sentences, by kind, that changes since the start (nats a token) give rise to."""
    found = {}
    if {"chosen", "rejected"} <= set(since) and max(since["chosen"], since["rejected"]) <= -fall:
        found["both_classes"] = (
            f"chosen and rejected completions have both lost likelihood since the start ({since['chosen']:+.2f} and "
            f"{since['rejected']:+.2f} nats a token; bound {-fall:+.2f}): it moves to answers that nobody asked for"
        )
    if since.get("held_out", 0.0) <= -held_out_fall:
        found["held_out"] = (
            f"held-out text has lost {-since['held_out']:.2f} nats a token since the start (bound {held_out_fall:.2f}):"
            " the model is being damaged beyond the training data"
        )
    return found


def evenly_spaced(rows: Sequence[TokenizedRow], count: int) -> list[TokenizedRow]:
    """At most `count` of the rows with completions, evenly apart."""
    some = np.flatnonzero(as_rows(rows).columns.completions)
    count = min(count, len(some))
    return [rows[int(some[i * len(some) // count])] for i in range(count)]
