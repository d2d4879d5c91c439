"""The reference cache: token log-probs of completions in a folder, by the content of their token ids.

    manifest.json       whose log-probs these are
    values-<rank>.f32   float32 values, completion after completion
    keys-<rank>.bin     for each completion its key, where its values begin, how many there are, and a CRC-32 of both

    writing.lock        held by the one run that writes

Files only grow, values before keys, so a run that is killed leaves a folder that the next one goes on with. Neither
order nor subset of the data, nor the loss, nor truncation matters: another truncation gives other ids, so other keys.
What a disk has changed is noticed when the folder is opened.
"""

import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.tokens.columns import hash_order, key_bytes, key_numbers
from lightning_bnf.datamodules.tokens.kept_arrays import kept_array
from lightning_bnf.runtime.files import append, write_text

_ENTRY = struct.Struct("<16sQII")  # key, first value, count, checksum
_WRITTEN = np.dtype([("high", ">u8"), ("low", ">u8"), ("first", "<u8"), ("count", "<u4"), ("checksum", "<u4")])
_READ = np.dtype([("high", "u8"), ("low", "u8"), ("first", "i8"), ("count", "i8"), ("checksum", "i8"), ("file", "i8")])
"""The same as columns, the key as two numbers; and of which of the files it is."""
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
        self._read: dict[Path, int] = {}  # bytes of the files when they were read last
        self._values_of: list[NDArray[np.float32]] = []
        self._index = _Index.of([])
        self.reload()

    def __contains__(self, key: bytes) -> bool:
        return bool(self.holds(key_numbers([key]))[0])

    def __len__(self) -> int:
        return len(self._index.keys)

    def holds(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """(K,) whether each of some keys (K, 2) is there, of which no dictionary is made: there may be millions."""
        return self._index.find(keys) >= 0

    def get(self, keys: Sequence[bytes], names: Sequence[str]) -> Tensor:
        """The values of completions one after the other, (N,). Raises `DataError` naming one that is missing."""
        if not keys:
            return torch.zeros(0)
        places = self._index.find(key_numbers(keys))
        for name, place in zip(names, places.tolist()):
            if place < 0:
                raise DataError(
                    f"reference cache {self.folder}: must be made from these data (python -m lightning_bnf cache "
                    f"--config FILE): it lacks a completion of row {name}"
                )
        found = self._index.entries[places]
        begins, counts, files = (found[name].tolist() for name in ("first", "count", "file"))
        some = [self._values_of[file][first : first + count] for file, first, count in zip(files, begins, counts)]
        return torch.from_numpy(np.concatenate(some))

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
        keys = other._index.in_order()
        lacking = key_bytes(keys[~self.holds(keys)])
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
        files = sorted(self.folder.glob("values-*.f32"))
        sizes = {part: size_now(part) for path in files for part in (path, _keys_of(path)) if part.exists()}
        if sizes == self._read and not mend:
            return
        self._values_of, parts = [], []
        for path in files:
            keys = _keys_of(path)
            whole = _whole_entries(keys, sizes[path] // 4)
            end = int((whole["first"] + whole["count"]).max(initial=0))
            if mend and keys == self._keys:
                _cut(keys, len(whole) * _ENTRY.size)
                _cut(path, 4 * end)
            if len(whole):
                values = np.memmap(path, dtype=np.float32, mode="r", shape=(end,))
                unchecked = whole[self._checked.get(path, 0) :]
                if not _all_as_written(unchecked, values):
                    raise self._damaged(path.name)
                self._checked[path] = len(whole)
                whole["file"] = len(self._values_of)
                parts.append(whole)
                self._values_of.append(values)
        self._index = _Index.of(parts)
        self._read = {} if mend else sizes

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


def _keys_of(values: Path) -> Path:
    return values.with_name(values.name.replace("values-", "keys-")).with_suffix(".bin")


def _whole_entries(path: Path, size: int) -> NDArray[Any]:
    """The entries that are whole, of so many values."""
    content = path.read_bytes() if path.exists() else b""
    entries = np.frombuffer(content[: len(content) // _ENTRY.size * _ENTRY.size], dtype=_WRITTEN)
    inside = entries["first"] <= size
    entries = entries[inside & (entries["count"] <= size - entries["first"])]
    found = np.zeros(len(entries), dtype=_READ)
    for name in _WRITTEN.names or ():
        found[name] = entries[name]
    return found


def _all_as_written(entries: NDArray[Any], values: NDArray[np.float32]) -> bool:
    """Whether every checksum is right. Of many entries that is kept for the next run, under the hash of all that was
    read for it: which is made twenty times as fast as their checksums are, one by one."""
    if not len(entries):
        return True
    first, end = int(entries["first"].min()), int((entries["first"] + entries["count"]).max())
    held = np.ascontiguousarray(values[first:end]).view(np.uint8).data
    key = b"".join(hashlib.sha256(part).digest() for part in (entries.tobytes(), held)) + first.to_bytes(8)

    def right() -> NDArray[np.bool_]:
        columns = (entries[name].tolist() for name in ("first", "count", "checksum"))
        alone = zip(key_bytes(_keys_in(entries)), *columns)
        return np.array([_checksum(one, values[at : at + count]) == checksum for one, at, count, checksum in alone])

    return bool(kept_array("checksums", key, len(entries), right, np.bool_).all())


def _keys_in(entries: NDArray[Any]) -> NDArray[np.uint64]:
    return np.stack([entries["high"], entries["low"]], axis=-1)


@dataclass(frozen=True, eq=False)
class _Index:
    """Where the values of each key are.

    keys: (E, 2) in rising order, each once; entries: (E,) those of them; order: (E,) where among all each first stands
    """

    keys: NDArray[np.uint64]
    entries: NDArray[Any]
    order: NDArray[np.int64]

    @staticmethod
    def of(parts: Sequence[NDArray[Any]]) -> "_Index":
        """The entries of several files; of one key the last holds."""
        entries = np.concatenate([np.zeros(0, _READ), *parts])
        keys = _keys_in(entries)
        order = hash_order(keys)
        risen = keys[order]
        new = np.ones(len(entries), dtype=bool)
        new[1:] = (risen[1:] != risen[:-1]).any(axis=1)
        last = np.roll(new, -1)  # of those alike, which stand as they came
        return _Index(risen[new], entries[order[last]], order[new])

    def in_order(self) -> NDArray[np.uint64]:
        """The keys as they came."""
        return self.keys[np.argsort(self.order)]

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(K,) the place of each of some keys (K, 2); -1 where it is not there."""
        at, found = np.searchsorted(self.keys[:, 0], keys[:, 0]), np.full(len(keys), -1)
        left = np.arange(len(keys))
        while len(left):  # once, but for keys whose first halves are alike
            left = left[at[left] < len(self.keys)]
            there = self.keys[at[left]]
            alike = there[:, 0] == keys[left, 0]
            same = alike & (there[:, 1] == keys[left, 1])
            found[left[same]] = at[left[same]]
            left = left[alike & ~same]
            at[left] += 1
        return found


def _cut(path: Path, size: int) -> None:
    if path.exists() and path.stat().st_size > size:
        with path.open("r+b") as file:
            file.truncate(size)
