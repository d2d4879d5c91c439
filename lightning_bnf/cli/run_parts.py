"""What a command gives its Trainer, loggers and callbacks in their order, and what --help says of its settings."""

import dataclasses
from argparse import SUPPRESS
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser

from lightning_bnf.callbacks import RunProgress

SETTING_HELP = {
    "trainer.default_root_dir": "The run folder: all of a run goes there; null is runs/latest.",
    "trainer.logger": "Loggers beside metrics.csv, which is always written: a class path or a list of them; null and "
    "true are TensorBoard's events in the run folder, false is none.",
    "trainer.callbacks": "Callbacks beside the run's own (checkpoints, fingerprints, plots, page, exported policy, "
    "graceful shutdown); one of the same class takes the place of the run's.",
    "trainer.gradient_clip_val": "Must be null: model.optimization.max_grad_norm clips the gradient of the whole step.",
    "trainer.accumulate_grad_batches": "Must be 1: data.examples_per_step and data.max_tokens say what a step holds.",
    "trainer.use_distributed_sampler": "Must be false: the step plan shares a step's rows over the ranks.",
    "trainer.precision": "32-true, bf16-mixed (weights in float32, products in bfloat16) or bf16-true.",
    "trainer.strategy": "How devices share the work: auto, ddp, or fsdp2, which shards weights, gradients and moments.",
}
"""What is to be said of the Trainer's settings where Lightning's own words are not true of a run here."""

STUBS = ("config.yaml", "events.out.*", "data_report.txt")  # all that there is of a run that was refused


def turn(callback: Callback) -> int:
    """When a callback's hooks are called: those that take long at the end come last."""
    return getattr(callback, "turn", 0)


def progress_of(config: Any) -> list[Callback]:
    """The run's signs of life, unless the config has a bar of its own or wants none."""
    own = any(isinstance(callback, ProgressBar) for callback in config.callbacks or [])
    return [] if own or config.enable_progress_bar is False or config.barebones else [RunProgress()]


def listed(logger: Any) -> list[Any]:
    """The loggers that a config names: none for true, false and null, which name none."""
    if logger is None or isinstance(logger, bool):
        return []
    return list(logger) if isinstance(logger, list | tuple) else [logger]


def two_last(folder: Path) -> ModelCheckpoint:
    """Checkpoints at every validation, or every epoch: the last, and the one before in case that one is broken."""
    return ModelCheckpoint(
        folder, filename="{step}", monitor="step", mode="max", save_top_k=2, enable_version_counter=False
    )


def hide(parser: LightningArgumentParser, prefix: str, keep: Sequence[str] = ()) -> None:
    """Leave the fields that begin with `prefix` out of --help, but for those that are kept; they are still read."""
    kept = {prefix + name for name in keep}
    for action in parser._actions:
        if action.dest.startswith(prefix) and action.dest not in kept:
            action.help = SUPPRESS


def fields_of(kind: Any, config: Any) -> dict[str, Any]:
    """A dataclass's arguments, which lie at the root of a command's config."""
    return {field.name: config[field.name] for field in dataclasses.fields(kind)}
