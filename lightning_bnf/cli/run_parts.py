"""Loggers and callbacks that a command gives its Trainer: which, and in what order."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar

from lightning_bnf.callbacks import RunProgress


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
