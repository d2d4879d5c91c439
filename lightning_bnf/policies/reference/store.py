"""The reference cache: token log-probs of completions in a folder, by the content of their token ids.

    manifest.json       whose log-probs these are
    values-<rank>.f32   float32 values, completion after completion
    keys-<rank>.bin     for each completion its key, where its values begin, how many there are, and a CRC-32 of both

    writing.lock        held by the one run that writes

Files only grow, values before keys, so a run that is killed leaves a folder that the next one goes on with. Neither
order nor subset of the data, nor the loss, nor truncation matters: another truncation gives other ids, so other keys.
What a disk has changed is noticed when the folder is opened.
"""

import json
import os
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.runtime.files import append, write_text

_ENTRY = struct.Struct("<16sQII")  # key, first value, count, checksum
_AT_ONCE = 4096
PATIENCE = 60.0  # seconds; NFS keeps attributes of files for up to 60 by default
FORMAT = "2"  # of the files; in the manifest, so that others are not read as these


class LogpsCache:
    """Token log-probs (float32, nats) by content key, in a folder that `manifest` describes.

    Raises `DataError` where the folder belongs to another manifest, naming the fields that differ, or where its files
    are not what was written.
    """

    def __init__(self, folder: str | Path, manifest: Mapping[str, str], rank: int = 0):
        self.folder, self.manifest, self.rank = Path(folder), {**manifest, "format": FORMAT}, rank
        self._check_manifest()
        self._checked: dict[Path, int] = {}  # entries whose checksums were compared
        self._where: dict[bytes, tuple[np.memmap, int, int]] = {}
        self.reload()

    def __contains__(self, key: bytes) -> bool:
        return key in self._where

    def __len__(self) -> int:
        return len(self._where)

    def get(self, keys: Sequence[bytes], names: Sequence[str]) -> Tensor:
        """The values of completions one after the other, (N,). Raises `DataError` naming one that is missing."""
        for key, name in zip(keys, names):
            if key not in self._where:
                raise DataError(
                    f"reference cache {self.folder}: must be made from these data (python -m lightning_bnf cache "
                    f"--config FILE): it lacks a completion of row {name}"
                )
        found = [self._where[key] for key in keys]
        if not found:
            return torch.zeros(0)
        return torch.from_numpy(np.concatenate([values[first : first + count] for values, first, count in found]))

    def add(self, keys: Sequence[bytes], values: Sequence[Tensor]) -> None:
        """Append completions; they are in the files when this returns."""
        if not keys:
            return
        begin = size_now(self._values) // 4 if self._values.exists() else 0
        entries, numbers = [], []
        for key, some in zip(keys, values):
            numbers.append(some.float().cpu().numpy())
            entries.append(_ENTRY.pack(key, begin, len(some), _checksum(key, numbers[-1])))
            begin += len(some)
        for path, content in ((self._values, np.concatenate(numbers).tobytes()), (self._keys, b"".join(entries))):
            append(path, content)

    def take(self, other: "LogpsCache") -> int:
        """Append what another cache holds and this one lacks; returns the number of completions."""
        lacking = [key for key in other._where if key not in self]
        for start in range(0, len(lacking), _AT_ONCE):
            some = lacking[start : start + _AT_ONCE]
            self.add(some, [other.get([key], [key.hex()]) for key in some])
        self.reload()
        return len(lacking)

    def written(self) -> dict[str, int]:
        """The sizes in bytes of this rank's own files."""
        return {path.name: size_now(path) for path in (self._values, self._keys) if path.exists()}

    def await_files(self, sizes: Mapping[str, int], seconds: float = PATIENCE) -> None:
        """Wait until the files of other nodes are as large here as they were written there, but no longer than that:
        a shared disk tells of them when what it knew before has grown old."""
        deadline = time.monotonic() + seconds
        while any(not (at := self.folder / name).exists() or size_now(at) < size for name, size in sizes.items()):
            if time.monotonic() > deadline:
                return  # what is lacking is named where it is asked for
            time.sleep(0.2)

    def reload(self, mend: bool = False) -> None:
        """Read what is in the files of all ranks; to `mend` is to cut off what a killed run left half-written, which
        only the one run may do that writes."""
        self._where.clear()
        for path in sorted(self.folder.glob("values-*.f32")):
            keys = path.with_name(path.name.replace("values-", "keys-")).with_suffix(".bin")
            size = size_now(path) // 4
            entries = [_ENTRY.unpack(entry) for entry in _whole_entries(keys)]
            whole = [entry for entry in entries if entry[1] + entry[2] <= size]
            end = max((first + count for _, first, count, _ in whole), default=0)
            if mend and keys == self._keys:
                _cut(keys, len(whole) * _ENTRY.size)
                _cut(path, 4 * end)
            if whole:
                values = np.memmap(path, dtype=np.float32, mode="r", shape=(end,))
                for key, first, count, checksum in whole[self._checked.get(path, 0) :]:
                    if _checksum(key, values[first : first + count]) != checksum:
                        raise self._damaged(path.name)
                self._checked[path] = len(whole)
                self._where |= {key: (values, first, count) for key, first, count, _ in whole}

    @property
    def _values(self) -> Path:
        return self.folder / f"values-{self.rank}.f32"

    @property
    def _keys(self) -> Path:
        return self.folder / f"keys-{self.rank}.bin"

    def _check_manifest(self) -> None:
        path = self.folder / "manifest.json"
        if not path.exists():
            entries = sorted(self.folder.glob("[!.]*"))  # hidden: another rank's manifest, half-written
            if entries:
                raise DataError(
                    f"reference cache must be a new or empty folder, or a reference cache, got {self.folder}, which "
                    f"holds {entries[0].name}"
                )
            write_text(path, json.dumps(self.manifest, indent=1) + "\n", keep=True)
        try:
            held = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise self._damaged(path.name) from error
        names = sorted(set(held) | set(self.manifest))
        differing = [name for name in names if held.get(name) != self.manifest.get(name)]
        if differing:
            fields = "; ".join(f"{name}: {held.get(name)} there, {self.manifest.get(name)} here" for name in differing)
            raise DataError(
                f"reference cache must be a new folder, got {self.folder}, made for another reference ({fields})"
            )

    def _damaged(self, name: str) -> DataError:
        return DataError(
            f"reference cache must be a folder as it was written, got {self.folder}, whose {name} was changed or "
            "damaged since; move the folder away, and it is computed again"
        )


def size_now(path: Path) -> int:
    """The bytes of a file, by opening it: of a file on a shared disk `stat` may tell what it was a while ago."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size


def _checksum(key: bytes, values: NDArray[np.float32]) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data, zlib.crc32(key))


def _whole_entries(path: Path) -> list[bytes]:
    content = path.read_bytes() if path.exists() else b""
    return [content[i : i + _ENTRY.size] for i in range(0, len(content) - _ENTRY.size + 1, _ENTRY.size)]


def _cut(path: Path, size: int) -> None:
    if path.exists() and path.stat().st_size > size:
        with path.open("r+b") as file:
            file.truncate(size)
