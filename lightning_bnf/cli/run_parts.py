"""What a command gives its Trainer, loggers and callbacks in their order, and what --help says of its settings."""

import dataclasses
import os
from argparse import SUPPRESS
from collections.abc import Sequence
from typing import Any

import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser

from lightning_bnf.callbacks import RunProgress
from lightning_bnf.runtime.progress import say
from lightning_bnf.training.support import precision_refusal

SETTING_HELP = {
    "trainer.default_root_dir": "The run folder: all of a run goes there; null is runs/latest. A config that "
    "was saved in a run's folder stands for that folder, wherever it is now, but where a fit begins anew.",
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


def trainer_refusal(trainer: Any, command: str) -> str | None:
    """Why a config's Trainer is not built, as a sentence: what runs here say elsewhere, and what Lightning would divide
    by, replace or misread in silence; None where nothing speaks against it."""
    idle = next((name for name in ("max_steps", "max_epochs") if command == "fit" and trainer[name] == 0), None)
    if idle is not None:
        return f"trainer.{idle} must be a number > 0 with fit, which would train nothing, got 0"
    if command == "fit" and trainer.limit_train_batches == 0:  # so a base is measured like what is trained
        say("trainer.limit_train_batches is 0: nothing is trained, and what is exported is the base")
    must = {
        "gradient_clip_val": ("null", "model.optimization.max_grad_norm clips the gradient of the whole step"),
        "accumulate_grad_batches": (
            "1",
            "data.examples_per_step (rows of a step) and data.max_tokens (budget of a micro-batch) say it",
        ),
        "use_distributed_sampler": ("false", "the step plan shares the rows over the ranks"),
    }
    for name, (accepted, why) in must.items():
        if trainer[name] != yaml.safe_load(accepted):
            return f"trainer.{name} must be {accepted}, got {str(trainer[name]).lower()}; {why}"
    for name in ("val_check_interval", "check_val_every_n_epoch"):
        interval = trainer[name]
        if interval is not None and not (isinstance(interval, int | float) and interval > 0):
            return f"trainer.{name} must be a number > 0 or null, got {interval}"
    if "://" in str(trainer.default_root_dir):
        return f"trainer.default_root_dir must be a folder of this machine, got {trainer.default_root_dir}"
    return precision_refusal(str(trainer.precision))


def say_crowded(trainer: Trainer) -> None:
    """Processes on more CPUs than there are take turns, which looks like a run that hangs."""
    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores and trainer.is_global_zero:
        say(f"trainer.devices is {trainer.num_devices}, more than the {cores} cores here: the processes take turns")


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


def hide(parser: LightningArgumentParser, prefix: str, keep: Sequence[str] = ()) -> None:
    """Leave the fields that begin with `prefix` out of --help, but for those that are kept; they are still read."""
    kept = {prefix + name for name in keep}
    for action in parser._actions:
        if action.dest.startswith(prefix) and action.dest not in kept:
            action.help = SUPPRESS


def fields_of(kind: Any, config: Any) -> dict[str, Any]:
    """A dataclass's arguments, which lie at the root of a command's config."""
    return {field.name: config[field.name] for field in dataclasses.fields(kind)}
