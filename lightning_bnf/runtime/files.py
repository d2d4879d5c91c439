"""Files and folders that are whole or not there, and where what is made once and used again is kept."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_bnf.runtime.refusal import Refusal

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
FULL = (errno.ENOSPC, errno.EDQUOT)
_KEPT = 48  # characters of a name
_HIDDEN = re.compile(r"\.(.+)\.(unfinished|previous)\.[0-9a-f]{32}", re.DOTALL)


class Unwritable(OSError, Refusal):
    """A file or folder that the disk does not take: it is full or broken, or may not be written. The message names it;
    whatever was there before is whole, so that who makes room can go on."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def writing(path: Path, numbers: Collection[int] = _DISK) -> Iterator[None]:
    """Around what writes `path`: raises `Unwritable` where the disk does not take it, whichever library says so how.
    `numbers` are the errors that say this."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        number = _number(error, path.parent)
        if number is None or number not in numbers:
            raise
        raise Unwritable(
            number, f"{path} must be on a disk with room where it may be written, got: {os.strerror(number)}"
        ) from error


def append(path: Path, content: bytes) -> None:
    """Add bytes to the end of a file, all of them or none. Raises `Unwritable` where the disk does not take them."""
    with writing(path), path.open("ab", buffering=0) as file:
        end, rest = file.seek(0, os.SEEK_END), memoryview(content)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(end)
            raise


def _number(error: BaseException | None, folder: Path) -> int | None:
    """The disk's own error number behind an exception; None where it is another file's, or no disk's at all."""
    while error is not None:
        named = getattr(error, "filename", None)
        found = re.search(r"\(os error (\d+)\)", str(error))  # of libraries in Rust
        number = int(found[1]) if found else getattr(error, "errno", None)
        if number in _DISK and (named is None or Path(os.fsdecode(named)).is_relative_to(folder)):
            return int(number)
        error = error.__cause__ or error.__context__
    return None


def cache_folder() -> Path:
    """`$LIGHTNING_BNF_CACHE`, else `lightning_bnf` under the user's cache folder: converted models, tokenized data,
    reference log-probs."""
    if explicit := os.environ.get("LIGHTNING_BNF_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lightning_bnf"


def hidden_name(path: Path, state: str = "unfinished") -> Path:
    """A name beside `path` that nobody else has; by chance and not by process id, as these repeat on shared disks."""
    return path.with_name(f".{path.name[:_KEPT]}.{state}.{uuid.uuid4().hex}")  # within 255 bytes in any alphabet


@contextmanager
def replacing(path: Path, keep: bool = False) -> Iterator[Path]:
    """A name that is not there yet, in `path`'s folder: what the block makes of it, file or folder, becomes `path`.

    On a failure what was written is removed and `path` stays as it was; a kill can only leave the hidden, unfinished
    name behind. Raises `Unwritable` where the disk does not take it. `keep`: what another process made in the meantime
    stays, and this one's goes.
    """
    unfinished = hidden_name(path)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            put_in_place(unfinished, path, keep)
    finally:
        _remove(unfinished)


def half_written(path: Path) -> bool:
    """Whether it is what a killed process, or one at work, has not finished."""
    return _HIDDEN.fullmatch(path.name) is not None


def clear_unfinished(paths: Iterable[Path]) -> None:
    """Remove those of the paths that killed processes left half-written; a folder that one of them was about to replace
    gets its name back. To be called where no other process writes."""
    for path in list(paths):
        named = _HIDDEN.fullmatch(path.name)
        if not named:
            continue
        target = path.with_name(named[1])
        if named[2] == "unfinished" or target.exists():
            _remove(path)
        elif len(named[1]) < _KEPT:  # else the name is a part of it
            path.rename(target)


def put_in_place(unfinished: Path, path: Path, keep: bool = False) -> None:
    """Make a finished file or folder `path`, once its contents are on the disk.

    A folder that was there is renamed first and removed last, so that at every moment the old or the new one is whole.
    `keep` as in `replacing`. Raises OSError, and leaves both, where a file would replace a folder or a folder a file.
    """
    for part in (unfinished, *unfinished.rglob("*")):
        _flush(part)
    if keep:
        _put_first(unfinished, path)
    elif path.is_dir() and unfinished.is_dir():
        previous = hidden_name(path, "previous")
        try:
            path.rename(previous)
            unfinished.rename(path)
        except BaseException:  # such as of a process that is told to end
            if previous.exists() and not path.exists():
                previous.rename(path)
            raise
        _remove(previous)
    else:
        os.replace(unfinished, path)
    _flush(path.parent)


def _put_first(unfinished: Path, path: Path) -> None:
    try:
        if unfinished.is_dir():
            unfinished.rename(path)
        else:
            os.link(unfinished, path)
    except OSError:
        if not path.exists():
            os.replace(unfinished, path)  # a file system without links


def write_text(path: Path, text: str, keep: bool = False) -> None:
    """Write a text file (UTF-8) that appears whole or not at all; `keep` as in `replacing`."""
    with replacing(path, keep) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    """To the disk: a name must not outlive a power cut before its contents do."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # file systems that flush no folders
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
