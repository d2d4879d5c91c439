"""The run that lies in a new run's folder already: it is moved aside, unless the new one reads what is in it."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lightning_bnf.cli.words import SHORT_FORMS, Option
from lightning_bnf.runtime.ownership import move_aside
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.checkpoints import lies_in

WRITTEN = "reference_cache"
"""The model's one setting of a place that is made anew where there is nothing."""


def moved_aside(folder: Path, config: Namespace, typed: Sequence[Option]) -> Path:
    """Rename the run folder; returns its new name. Saved configs that the new run was started with have their place
    again in the new folder, as the run's other processes read them later.

    Raises `Refusal`, before anything is moved, where the model or the data are to be read from the folder, such as the
    policy that the run before has trained.
    """
    for key, value in _texts(config):
        if lies_in(value, folder):
            named = next((short for short, written in SHORT_FORMS.items() if written == key), key)
            raise Refusal(
                f"trainer.default_root_dir must be another folder than that of {named} {value}, got {folder}, which "
                f"would be moved aside for the new run; name one, such as --trainer.default_root_dir {_free(folder)}"
            )
    aside = move_aside(folder)
    folder.mkdir()
    for option in typed:
        if option.key == "config" and Path(option.values[0]).resolve().parent == folder.resolve():
            shutil.copy2(aside / Path(option.values[0]).name, option.values[0])
    return aside


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
