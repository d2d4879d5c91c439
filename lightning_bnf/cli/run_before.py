"""The run that lies in a new run's folder already: it is moved aside, unless the new one reads what is in it."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lightning_bnf.cli.run_parts import STUBS
from lightning_bnf.cli.words import SHORT_FORMS, Option, named_files
from lightning_bnf.runtime.ownership import LOCK, MARK, move_aside, take_back
from lightning_bnf.runtime.refusal import Refusal

WRITTEN = ("reference_cache", "dirpath", "folder")
"""Settings of places that are made anew where there is nothing."""
OWN = "lightning_bnf."


def moved_aside(folder: Path, config: Namespace) -> Path:
    """Rename the run folder, and say so; returns its new name.

    Raises `Refusal`, before anything is moved, where the model, the data or a callback of ours are to read from the
    folder, such as the policy that the run before has trained.
    """
    refuse_reading("trainer.default_root_dir", "--trainer.default_root_dir ", folder, _texts(config))
    return set_aside(folder)


def refuse_reading(argument: str, typed: str, folder: Path, named: Iterable[tuple[str, str]]) -> None:
    """Raises `Refusal` where one of the texts, by what they are set with, is a place in the folder, which would be
    gone. `typed`: what stands before another folder where one names it."""
    for key, value in named:
        if os.path.exists(os.path.expanduser(value)) and _lies_in(value, folder):  # not of Path: however long a text is
            short = next((short for short, written in SHORT_FORMS.items() if written == key), key)
            raise Refusal(
                f"{argument} must be another folder than that of {short} {value}, got {folder}, which would be moved "
                f"aside for the new run; name one, such as {typed}{_free(folder)}"
            )


def set_aside(folder: Path) -> Path:
    """Rename a run's folder, and say so; returns its new name."""
    aside = move_aside(folder)
    print(f"{folder} held a run already; it is now {aside}")
    return aside


def leave_files(folder: Path, aside: Path, typed: Sequence[Option]) -> list[Path]:
    """Where the new run was started with files that lay in the one moved aside, such as its saved config, copies of
    them get their places again: other processes of the run read them later, and so does the same command. Returns
    them."""
    left: dict[Path, None] = {}  # in their order, each once
    for file, form in product(named_files(typed), (Path.absolute, Path.resolve)):
        path, top = form(file), form(folder)
        if top in path.parents and (aside / path.relative_to(top)).is_file():
            again = folder / path.relative_to(top)
            again.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(aside / path.relative_to(top), again)
            left[again] = None
    return list(left)


def give_back(folder: Path, aside: Path | None, left: Sequence[Path]) -> None:
    """Undo all of it where the new run was refused: see `take_back`. Where there is more in the folder than was left
    there and what a refused run writes, nothing is touched."""
    own = {*left, *(parent for file in left for parent in file.parents)}
    stubs = {path for stub in (MARK, LOCK, *STUBS) for path in folder.glob(stub)}
    if any(path not in own and path not in stubs for path in folder.rglob("*")):
        return
    for file in left:
        file.unlink(missing_ok=True)
        for parent in file.parents:
            if folder not in parent.parents or any(parent.iterdir()):
                break
            parent.rmdir()
    take_back(folder, aside, STUBS)


def _lies_in(value: str, folder: Path) -> bool:
    """By its name, or where links lead: either is gone once the folder has another name."""
    path = Path(value).expanduser()
    return folder.absolute() in path.absolute().parents or folder.resolve() in path.resolve().parents


def _free(folder: Path) -> Path:
    name = "next" if folder.name == "latest" else f"{folder.name}_next"
    return folder.with_name(name)


def _texts(config: Namespace) -> Iterator[tuple[str, str]]:
    """The texts among the settings of model, data and our callbacks, by what they are set with; of lists each by the
    list's name."""
    for group in ("model", "data"):
        yield from _inside(group, config[group])
    for one in config.get("trainer.callbacks") or []:
        if str(one.class_path).startswith(OWN):
            yield from _inside(str(one.class_path).rpartition(".")[2], one.get("init_args"))


def _inside(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and key.rpartition(".")[2] not in WRITTEN:
        yield key, value
    elif isinstance(value, Namespace):
        yield from _inside(key, vars(value))
    elif isinstance(value, dict):
        for name, held in value.items():
            yield from _inside(f"{key}.{name}", held)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _inside(key, held)
