"""Compressed files are what they are without compression, and broken ones are refused."""

import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from support.rows import GOOD, only, refused

from lightning_bnf.datamodules.reading.records import read_rows
from lightning_bnf.datamodules.reading.streams import ending

LINE = json.dumps(GOOD).encode() + b"\n"
TABLE = b"prompt,chosen,rejected\nQ,A,B\n"


def packed(file: Path, content: bytes) -> None:
    if file.suffix.lower() == ".gz":
        file.write_bytes(gzip.compress(content))
    else:
        with pyarrow.CompressedOutputStream(str(file), "zstd") as stream:
            stream.write(content)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", LINE), ("a.json", b"[" + LINE + b"]"), ("a.csv", TABLE), ("A.JSONL", LINE)]
)
def test_compressed_is_as_plain(tmp_path: Path, suffix: str, name: str, content: bytes) -> None:
    file = tmp_path / (name + suffix)
    packed(file, content)
    row = only(str(file))
    (tmp_path / name).write_bytes(content)
    assert row.id == only(str(tmp_path / name)).id
    assert row.source.startswith(f"{file}:")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_files_of_several_parts_are_read_to_the_end(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.jsonl{suffix}"
    packed(file, LINE)
    file.write_bytes(3 * file.read_bytes())
    assert len(read_rows(str(file))) == 3


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_broken_ones_are_refused(tmp_path: Path, suffix: str, name: str) -> None:
    file = tmp_path / (name + suffix)
    packed(file, TABLE * 1000 if name == "a.csv" else LINE * 1000)
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"no such file\n" * 10):
        file.write_bytes(content)
        refused(str(file), f"{name}{suffix}: must be a whole {suffix} file, got one that is not readable")


def test_what_a_file_is_stands_before_the_compression() -> None:
    names = {"a.jsonl": ".jsonl", "a.b.csv": ".csv", "A.JSON.GZ": ".json", "a.gz": ".gz", "a": "", "a.tar.zst": ".tar"}
    assert {name: ending(Path(name)) for name in names} == names


def test_compressed_files_of_no_known_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(LINE))
    refused(str(tmp_path / "a.gz"), "got a file that ends in '.gz'")
