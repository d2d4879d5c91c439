"""Data files as streams of bytes, decompressed as they are read."""

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow

from lightning_bnf.datamodules.reading.errors import DataError

COMPRESSED = (".gz", ".zst")


def ending(file: Path) -> str:
    """What a file is, by its name, compression aside: `.jsonl` of `a.jsonl`, `A.JSONL` and `a.jsonl.gz`."""
    endings = [suffix.lower() for suffix in file.suffixes]
    return endings[-2] if len(endings) > 1 and endings[-1] in COMPRESSED else (endings or [""])[-1]


class Opened:
    """A file's bytes, for use in `with`. What cannot be decompressed raises `DataError`, wherever it is noticed."""

    def __init__(self, path: str, file: Path):
        self.path, self.file = path, file

    def __enter__(self) -> BinaryIO:
        suffix = self.file.suffix.lower()
        if suffix == ".gz":
            self.stream = cast(BinaryIO, gzip.open(self.file, "rb"))
        elif suffix == ".zst":
            self.stream = io.BufferedReader(pyarrow.input_stream(str(self.file), compression="zstd"))
        else:
            self.stream = self.file.open("rb")
        return self.stream

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.stream.close()
        suffix = self.file.suffix.lower()
        if suffix in COMPRESSED and isinstance(error, (OSError, EOFError, zlib.error)):
            raise DataError(
                f"{self.path}: must be a whole {suffix} file, got one that is not readable ({error})"
            ) from None
