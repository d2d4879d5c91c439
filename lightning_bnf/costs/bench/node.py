"""Two to eight GPUs of a node against one: speed, the same gradients, `max_tokens: auto`, and a run that is killed.

Each variant is a whole `fit` as it is typed, whose processes Lightning starts; a callback writes down what the steps
were.
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_bnf.costs.bench.gpu import EIGHT, ONE
from lightning_bnf.costs.bench.steps import SEED, Workload
from lightning_bnf.costs.bench.trainings import PRECISION, TOY, model_folder
from lightning_bnf.costs.bench.workers import Turns, Variant
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.runtime.distributed import gather_objects, whole

SUITE = "node"
STEPS, WARMUPS = 8, 2
COUNTS = (2, 4, 8)
SAMPLE = 256  # numbers of each gradient that are compared
SECONDS = 1500  # that a run may take


class TellSteps(Callback):
    """Writes a line of JSON for every step into `file`, and beside it, with the ending .pt, numbers of the first step's
    gradient: whole ones, as the ranks have agreed on them."""

    def __init__(self, file: str, kill_after: int = 0):
        """
        Args:
            file: Where the first rank writes; lines are added.
            kill_after: The step after which the first rank kills all processes of its group, as a node that goes down
                does; 0 for none.
        """
        self.file = Path(file)
        self.kill_after = kill_after
        self._begun = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._begun = time.perf_counter()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step:
            return
        parts = [_some(whole(p.grad)) for p in pl_module.parameters() if p.grad is not None]
        if trainer.is_global_zero:
            torch.save(torch.cat(parts), self.file.with_suffix(".pt"))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PreferenceData)
        loss = float(trainer.callback_metrics["train/loss"])  # waits for the device
        seconds = time.perf_counter() - self._begun
        told = gather_objects(
            (sum(one.inputs["input_ids"].numel() for one in batch.micro_batches), data.budget.max_tokens)
        )
        if trainer.is_global_zero:
            tokens, budgets = sum(tokens for tokens, _ in told), sorted({budget for _, budget in told})
            line = {"step": trainer.global_step, "seconds": seconds, "loss": loss, "tokens": tokens, "budgets": budgets}
            with self.file.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if trainer.global_step == self.kill_after:
                os.killpg(os.getpgrp(), signal.SIGKILL)


def _some(gradient: Tensor) -> Tensor:
    flat = gradient.detach().flatten()
    return flat[:: max(1, len(flat) // SAMPLE)][:SAMPLE].float().cpu()


@dataclass(frozen=True)
class Fit:
    """A run on `devices` of a kind; like it, but for the devices, is what `baseline` names. folder: where models,
    caches and what the runs tell are."""

    name: str
    shape: str
    devices: int
    strategy: Literal["auto", "ddp", "fsdp2"]
    device: str
    tokenizer: str
    folder: str
    workload: Workload
    baseline: str = ""

    def config(self, run: Path, saving: bool, kill_after: int) -> dict[str, Any]:
        """As a file of --config."""
        source = model_folder(self.shape, self.tokenizer, self.folder, self.device)
        policy = {"source": source, "gradient_checkpointing": True}
        callbacks: list[dict[str, Any]] = [
            {"class_path": f"{__name__}.TellSteps", "init_args": {"file": str(self.told), "kill_after": kill_after}}
        ]
        if saving:
            kept = {
                "dirpath": str(run / "checkpoints"),
                "filename": "{step}",
                "every_n_train_steps": 2,
                "save_top_k": -1,
            }
            callbacks.append({"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": kept})
        return {
            "seed_everything": SEED,
            "model": {
                "policy": {"class_path": "lightning_bnf.policies.FullPolicy", "init_args": policy},
                "loss": {"class_path": "lightning_bnf.losses.BNF"},
                "reference": "cache",
                "reference_cache": f"{self.folder}/cache-{self.shape.split()[0]}",
                "optimization": {"learning_rate": 1e-6, "schedule": "constant", "warmup_ratio": 0.0},
            },
            "data": {
                "train": self.workload.written(self.folder),
                "examples_per_step": self.workload.pairs,
                "max_tokens": self.workload.max_tokens,
                "layout": self.workload.layout,
                "options": {"rendering": {"strings": "text"}},
            },
            "trainer": {
                "accelerator": self.device,
                "devices": self.devices,
                "strategy": self.strategy,
                "precision": PRECISION,
                "max_steps": STEPS,
                "max_epochs": -1,
                "enable_checkpointing": saving,
                "default_root_dir": str(run),
                "callbacks": callbacks,
            },
            "report": {"rows": 0},
        }

    @property
    def told(self) -> Path:
        """The file of what its steps were."""
        return Path(self.folder) / f"{self.name.replace(' ', '-')}.jsonl"


def run(turns: Turns, fit: Fit) -> None:
    """A turn is the whole run. Told: the median seconds of a step, tokens a second, the loss of the last step, and
    against the baseline the efficiency (1: as many times as fast as there are more devices), and how far the first
    step's gradient is from its own, as a share of it."""
    turns.wait()
    fit.told.unlink(missing_ok=True)
    _fitted(fit)
    turns.done(**_numbers(fit))
    turns.wait()


def killed(turns: Turns, fit: Fit) -> None:
    """A turn is a run that is killed with SIGKILL, all its processes, after three steps, and started again with
    `--ckpt_path last`. Told: the first step after that, and how far the last loss is from the baseline's, as a
    share."""
    turns.wait()
    fit.told.unlink(missing_ok=True)
    _fitted(fit, saving=True, kill_after=3)
    before = len(_lines(fit.told))
    _fitted(fit, saving=True)
    lines, wanted = _lines(fit.told), _lines(replace(fit, name=fit.baseline).told)
    off = abs(lines[-1]["loss"] / wanted[-1]["loss"] - 1)
    turns.done(first_step_after=lines[before]["step"], last_step=lines[-1]["step"], last_loss_off=off)
    turns.wait()


def _fitted(fit: Fit, saving: bool = False, kill_after: int = 0) -> None:
    """Run the command to its end; with `saving` from its last checkpoint on."""
    run = Path(fit.folder) / f"run-{fit.name.replace(' ', '-')}"
    with tempfile.TemporaryFile() as said:
        config = Path(fit.folder) / f"{run.name}.yaml"
        config.write_text(yaml.safe_dump(fit.config(run, saving, kill_after)))
        words = [sys.executable, "-m", "lightning_bnf", "fit", "--config", str(config)]
        words += ["--ckpt_path", "last"] if saving else []
        process = subprocess.Popen(words, stdout=said, stderr=said, start_new_session=True)
        try:
            status = process.wait(SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):  # of its session: the ranks that it has started too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if status != (-signal.SIGKILL if kill_after else 0):
            said.seek(0)
            text = said.read()[-3000:].decode(errors="replace")
            raise RuntimeError(f"{fit.name} ended with {status}: {text}")


def _lines(file: Path) -> list[dict[str, Any]]:
    """The steps that were told."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def _numbers(fit: Fit) -> dict[str, Any]:
    lines = _lines(fit.told)
    seconds = statistics.median(line["seconds"] for line in lines[WARMUPS:])
    speed = statistics.median(line["tokens"] / line["seconds"] for line in lines[WARMUPS:])
    budgets = {budget for line in lines for budget in line["budgets"]}
    if len(budgets) > 1:
        raise RuntimeError(f"the ranks cut micro-batches by other budgets: {sorted(budgets)}")
    found = {"step_seconds": seconds, "tokens_a_second": speed, "budget": budgets.pop(), "last_loss": lines[-1]["loss"]}
    if fit.baseline:
        one = replace(fit, name=fit.baseline).told
        alone = statistics.median(line["seconds"] for line in _lines(one)[WARMUPS:])
        mine, wanted = (torch.load(file.with_suffix(".pt"), weights_only=True) for file in (fit.told, one))
        found["efficiency"] = alone / (seconds * fit.devices)
        found["gradient_off"] = float((mine - wanted).norm() / wanted.norm())
    return found


def variants(tokenizer: str, folder: str, rehearse: bool) -> list[list[Variant]]:
    """Full fine-tuning of 1B on one device and on more, `max_tokens: auto` and a kill on all, and 8B where it fits."""
    there = 2 if rehearse else torch.cuda.device_count()
    size: dict[str, Any] = (
        {"rows": 16, "pairs": 4, "max_tokens": 700}
        if rehearse
        else {"rows": 256, "pairs": 64, "max_tokens": 8192, "scale": 4}
    )
    device = "cpu" if rehearse else "cuda"
    one = Fit("one", TOY if rehearse else ONE, 1, "auto", device, tokenizer, folder, Workload("", **size))
    counts = [count for count in COUNTS if count <= there]
    most = counts[-1]
    fits = [one]
    for strategy in ("ddp", "fsdp2"):
        fits += [replace(one, name=f"{strategy} {n}", devices=n, strategy=strategy, baseline="one") for n in counts]
    last = fits[-1]
    auto = replace(last, name=f"{last.name} auto", workload=replace(last.workload, max_tokens="auto"), baseline="")
    case = f"full, {one.shape.split()[0]}, {one.workload.pairs} pairs a step"
    group = [_variant(case, fit, run) for fit in (*fits, auto)]
    group.append(_variant(case, replace(last, name=f"{last.name} killed", baseline=last.name), killed))
    groups = [group]
    if not rehearse and most * torch.cuda.get_device_properties(0).total_memory > 300e9:
        eight = replace(last, name=f"8B {last.name}", shape=EIGHT, baseline="")
        groups.append([_variant(f"full, 8B, {one.workload.pairs} pairs a step", eight, run)])
    return groups


def _variant(case: str, fit: Fit, contest: Any) -> Variant:
    return Variant(SUITE, case, fit.name, contest, {"fit": fit}, alone=True, once=True)
