"""Which classes a config or a flag may name: a file from a stranger builds no objects of arbitrary code.

In a Python session class paths are the user's own words; the command line, which reads files, restricts them.
"""

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from lightning_bnf.runtime.refusal import Refusal

PACKAGES = ("lightning_bnf", "torch.optim", "bitsandbytes.optim", "transformers", "peft", "lightning")
"""Where losses, policies, callbacks, loggers, scorers, engines, optimizers, schedulers and strategies come from."""

_let_in: tuple[str, ...] | None = None


@contextmanager
def restricted(named: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    """Inside the block class paths are of `PACKAGES` or of what the user `named`, all of which is given.

    Raises `Refusal` for a name that is none of a module, or that is of Python's standard library: to name `os` would
    let a config run any command.
    """
    global _let_in
    for name in named:
        if not all(map(str.isidentifier, name.split("."))) or _is_standard(name):
            raise Refusal(f"--allow must be a module of yours, such as my_losses, and none of Python's own, got {name}")
    before, _let_in = _let_in, (*PACKAGES, *named)
    try:
        yield _let_in
    finally:
        _let_in = before


def check_class_path(path: str) -> None:
    """Raises `Refusal` for a path that `restricted` leaves out."""
    if _let_in is not None and not _is_of(path, _let_in):
        raise Refusal(refusal_of(path))


def check_class_paths(config: Any) -> None:
    """Raises `Refusal` for a config, of any depth, that names a class outside `PACKAGES`: in a session, one of yours is
    given itself."""
    if isinstance(config, dict):
        path = config.get("class_path")
        if isinstance(path, str) and "." in path and not _is_of(path, PACKAGES):
            raise Refusal(f"class_path must be of {_listed()} in a file, got {path}; give an object of it instead")
        config = list(config.values())
    for held in config if isinstance(config, list) else []:
        check_class_paths(held)


def _is_of(path: str, packages: Sequence[str]) -> bool:
    return any(f"{path}.".startswith(f"{package}.") for package in packages)


def _listed() -> str:
    return f"{', '.join(PACKAGES[:-1])} or {PACKAGES[-1]}"


def refusal_of(path: str) -> str:
    """The sentence on a class path that is not accepted, with the words that let it in where that is possible."""
    module = path.rpartition(".")[0] or path
    said = f"class_path must be of {_listed()}, got {path}"
    if _is_standard(path):
        return f"{said}, which is Python's own and would run whatever a config says"
    return f"{said}; if you know and trust that code, allow it by adding: --allow {module}"


def class_at(path: str) -> Any:
    """What a class path names. Raises `Refusal` where it is not accepted, before anything of it is imported; else what
    importing it raises, and ImportError for what is no path."""
    check_class_path(path)
    module, _, name = path.rpartition(".")
    if not all(map(str.isidentifier, path.split("."))) or not module:
        raise ImportError(f"no class path: {path}")
    return getattr(import_module(module), name)


def own_function(path: str) -> Any:
    """A function that a module defines which the user named on the command line; None for every other path: rows are
    often a stranger's words, and of what is installed they may name nothing.

    Raises ImportError where the module cannot be imported.
    """
    module, _, name = path.rpartition(".")
    if _let_in is None or not module or not _is_of(module, _let_in[len(PACKAGES) :]):
        return None
    found = getattr(import_module(module), name, None)
    return found if inspect.isfunction(found) and found.__module__ == module else None


def source_of_module(name: str) -> str | None:
    """The text of a module's file, as it is now; None where there is none, or where what is typed into a session need
    not stand in it."""
    if name == "__main__" and (hasattr(sys, "ps1") or sys.flags.interactive):
        return None
    try:
        return inspect.getsource(sys.modules[name])
    except (KeyError, TypeError, OSError):
        return None


def _is_standard(path: str) -> bool:
    return path.partition(".")[0] in (sys.stdlib_module_names | {"builtins", "jsonargparse"})
