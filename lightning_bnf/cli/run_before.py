"""The run that lies in a new run's folder already: it is moved aside, unless the new one reads what is in it."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lightning_bnf.cli.saved_config import FILES
from lightning_bnf.cli.words import SHORT_FORMS, Option
from lightning_bnf.runtime.ownership import move_aside
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.checkpoints import lies_in

WRITTEN = "reference_cache"
"""The model's one setting of a place that is made anew where there is nothing."""


def moved_aside(folder: Path, config: Namespace) -> Path:
    """Rename the run folder, and say so; returns its new name.

    Raises `Refusal`, before anything is moved, where the model or the data are to be read from the folder, such as the
    policy that the run before has trained.
    """
    for key, value in _texts(config):
        if os.path.exists(value) and lies_in(value, folder):  # not of Path: a text may be longer than any name
            named = next((short for short, written in SHORT_FORMS.items() if written == key), key)
            raise Refusal(
                f"trainer.default_root_dir must be another folder than that of {named} {value}, got {folder}, which "
                f"would be moved aside for the new run; name one, such as --trainer.default_root_dir {_free(folder)}"
            )
    aside = move_aside(folder)
    print(f"{folder} held a run already; it is now {aside}")
    return aside


def leave_config(folder: Path, aside: Path, typed: Sequence[Option]) -> None:
    """Where the new run was started with the saved config of the one moved aside, the config has its place again until
    the new one is written over it: other processes of the run read it later."""
    saved = folder.resolve() / FILES["fit"]
    if any(option.key == "config" and Path(option.values[0]).resolve() == saved for option in typed):
        shutil.copyfile(aside / saved.name, saved)


def _free(folder: Path) -> Path:
    name = "next" if folder.name == "latest" else f"{folder.name}_next"
    return folder.with_name(name)


def _texts(config: Namespace) -> Iterator[tuple[str, str]]:
    """The texts among the settings of model and data, by what they are set with; of lists each by the list's name."""
    for group in ("model", "data"):
        yield from _inside(group, config[group])


def _inside(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and key.rpartition(".")[2] != WRITTEN:
        yield key, value
    elif isinstance(value, Namespace):
        yield from _inside(key, vars(value))
    elif isinstance(value, dict):
        for name, held in value.items():
            yield from _inside(f"{key}.{name}", held)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _inside(key, held)
