"""Arrays kept on disk: made once, for one key, and anew where the file is not as it was written."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import slow_rows as slow

from lightning_bnf.datamodules.steps.holdout import hold_out
from lightning_bnf.datamodules.tokens import kept_arrays
from lightning_bnf.datamodules.tokens.derived import Mismatched
from lightning_bnf.datamodules.tokens.kept_arrays import kept_array
from lightning_bnf.datamodules.tokens.rows import RowView


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept_arrays, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(kept_arrays, "FROM", 3)
    return tmp_path


def asked(key: bytes, values: list[int]) -> tuple[list[int], bool]:
    """What is kept under a key, and whether it was made for that."""
    made = []

    def make() -> Any:
        made.append(key)
        return np.array(values)

    return kept_array("some", key, len(values), make, np.int64).tolist(), bool(made)


def test_it_is_made_once_for_a_key() -> None:
    assert asked(b"a", [1, 2, 3]) == ([1, 2, 3], True)
    assert asked(b"a", [7, 8, 9]) == ([1, 2, 3], False)
    assert asked(b"b", [7, 8, 9]) == ([7, 8, 9], True)
    assert asked(b"a", [7, 8, 9, 0]) == ([7, 8, 9, 0], True), "of another length it is another"


def test_few_are_not_kept(folder: Path) -> None:
    assert asked(b"a", [1, 2]) == asked(b"a", [1, 2]) == ([1, 2], True)
    assert not [*folder.iterdir()]


@pytest.mark.parametrize("place", [0, 40, -1])
def test_what_a_disk_has_changed_is_made_anew(folder: Path, place: int) -> None:
    asked(b"a", [1, 2, 3])
    (path,) = folder.rglob("some/*")
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert asked(b"a", [7, 8, 9]) == ([7, 8, 9], True)
    path.write_bytes(b"")
    assert asked(b"a", [4, 5, 6]) == ([4, 5, 6], True)


def test_a_full_disk_is_no_reason_to_stop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "full", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        assert asked(b"a", [1, 2, 3]) == ([1, 2, 3], True)
    assert not [*folder.rglob("some/*")]


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_held_out_and_partners_are_the_same_when_they_are_read(folder: Path, seed: int) -> None:
    rows = slow.some_rows(300)
    some = RowView([rows], np.arange(299, -1, -2))
    for given, alone in ((RowView([rows]), rows), (some, [*some])):
        wanted = [alone[i].source for i in slow.held_out(alone, seed)]
        partners = slow.mismatched(alone, 1000)
        for _ in range(2):
            assert [row.source for row in hold_out(given, seed).validation] == wanted
            assert [*Mismatched(given, 1000)] == partners
    assert len([*folder.rglob("held_out/*")]) == len([*folder.rglob("mismatched/*")]) == 2
