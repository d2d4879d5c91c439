"""Folders of ours and of others: what somebody else put there is never replaced.

A folder that a command writes carries the hidden file `.lightning_bnf`: which command wrote it, and, where the whole
folder is replaced the next time, what it wrote. Whatever is not named there is foreign.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from lightning_bnf.runtime.files import clear_unfinished, half_written, write_text
from lightning_bnf.runtime.refusal import Refusal

MARK, LOCK = ".lightning_bnf", ".lock"
_HASHED = 2**20  # bytes; of larger files, which nobody edits by hand, the size is compared
_SHOWN = 3


def check_claim(argument: str, folder: Path, command: str, signs: Sequence[str] = ()) -> None:
    """Raises `Refusal` where `claim` would, but for what only writing shows; to be called before hours of work."""
    entries = _entries(argument, folder)
    if entries and _owner(folder) != command and not _has_signs(folder, signs):
        raise Refusal(
            f"{argument} must be a new or empty folder, or one that `{command}` wrote, got {folder}, which holds "
            f"{_named(entries)}"
        )


def claim(argument: str, folder: Path, command: str, signs: Sequence[str] = ()) -> None:
    """Make `folder` a command's own, so that the command may replace its own files there.

    argument: what the user calls the folder by. signs: words of a `config.yaml` by which a folder is the command's
    that has no mark. Raises `Refusal` for a folder that holds anything and was not the command's before, for a file,
    and for one that cannot be written.
    """
    check_claim(argument, folder, command, signs)
    if _owner(folder) != command:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / MARK, json.dumps({"command": command}) + "\n", keep=True)
        except OSError as error:
            raise Refusal(f"{argument} must be a folder that can be written, got {folder} ({error})") from error


def holds_run(folder: Path) -> bool:
    """Whether a run lies in `folder`: its mark says so or, where a copy has lost hidden files, its metrics do."""
    return _owner(folder) == "fit" or (folder / "metrics.csv").is_file()


def hold(argument: str, folder: Path) -> BaseFileLock:
    """Keep other processes from writing into `folder` until the lock is released, or this process dies. Checkpoints
    that killed ones have left half-written are removed; beside them other commands may be at work.

    Raises `Refusal` where one does so already, and touches nothing then.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Refusal(
            f"{argument} must be a folder that no other run is writing into, got {folder}, where one is at work"
        ) from None
    clear_unfinished((folder / "checkpoints").glob(".*"))
    return lock


def mark_contents(folder: Path, command: str) -> None:
    """Write down what a finished folder holds, before it is put in its place."""
    text = json.dumps({"command": command, "files": _contents(folder)}, indent=1)
    (folder / MARK).write_text(text + "\n", encoding="utf-8")


def foreign(folder: Path) -> list[str]:
    """What in a folder is not as `mark_contents` wrote it down: files added or changed since, relative to it.

    All of it where there is no such mark; nothing for a folder that is empty or not there.
    """
    if not folder.is_dir():
        return []
    written = _mark(folder).get("files")
    if not isinstance(written, dict):  # not read: it may be any folder of this machine
        return [path.relative_to(folder).as_posix() for path in _files(folder)]
    return [name for name, held in _contents(folder).items() if written.get(name) != held]


def check_replaceable(argument: str, folder: Path) -> None:
    """Raises `Refusal` where replacing `folder` would cost somebody a file."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise Refusal(f"{argument} must be a folder or a name that is free, got {folder}, a link or file")
    if folder.resolve() in (Path.cwd().resolve(), *Path.cwd().resolve().parents):
        raise Refusal(f"{argument} must be another folder than the one this command runs in, got {folder}")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise Refusal(f"{argument} must be in a folder that can be written, got {folder}, above which lies {above}")
    strangers = foreign(folder)
    if strangers:
        raise Refusal(
            f"{argument} must be a new or empty folder, or one that was exported and not changed since, got {folder}, "
            f"which holds {_named(strangers)}"
        )


def move_aside(folder: Path) -> Path:
    """Rename a folder to the first free of `NAME.1`, `NAME.2`, ...; returns the new name. Raises `Refusal` for a folder
    that is not called by its name, `.` or `..`: what is named beside it would be elsewhere then."""
    if folder.name in ("", ".."):
        raise Refusal(f"the folder of a run must be called by its name, to be moved aside, got {str(folder)!r}")
    aside = next(name for i in itertools.count(1) if not (name := folder.with_name(f"{folder.name}.{i}")).exists())
    folder.rename(aside)
    return aside


def keep_earlier(path: Path) -> None:
    """Give a file that lies where another is to be written the first free name of `NAME.1.EXT`, ..., and say so."""
    if path.exists():
        names = (path.with_name(f"{path.stem}.{i}{path.suffix}") for i in itertools.count(1))
        aside = next(name for name in names if not name.exists())
        path.rename(aside)
        print(f"{path} was there already; it is now {aside.name}")


def take_back(folder: Path, aside: Path | None, stubs: Sequence[str]) -> None:
    """Undo a claim that came to nothing: remove `folder` if it holds only what matches `stubs`, and let what was moved
    `aside` for it have its name again. Where there is more in it, both stay as they are."""
    held = list(folder.iterdir()) if folder.is_dir() else []
    if any(path.is_dir() or not any(path.match(stub) for stub in (MARK, LOCK, *stubs)) for path in held):
        return
    for path in held:
        path.unlink()
    if folder.is_dir():
        folder.rmdir()
    if aside is not None:
        aside.rename(folder)


def _entries(argument: str, folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not half_written(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Refusal(f"{argument} must be a folder, got {folder} ({error.strerror})") from error


def _mark(folder: Path) -> dict[str, object]:
    try:
        held = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _owner(folder: Path) -> object:
    return _mark(folder).get("command")


def _has_signs(folder: Path, signs: Sequence[str]) -> bool:
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return any(sign in text for sign in signs)


def _contents(folder: Path) -> dict[str, str | int]:
    return {path.relative_to(folder).as_posix(): _state(path) for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    """Everything but folders, which hold nothing of their own; links are not followed."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.name != MARK:
            yield path


def _state(path: Path) -> str | int:
    if path.is_symlink() or not path.is_file():
        return "no file"
    size = path.stat().st_size
    return size if size > _HASHED else hashlib.sha256(path.read_bytes()).hexdigest()


def _named(entries: Sequence[str]) -> str:
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return ", ".join(entries[:_SHOWN]) + more
