"""Exports are whole or not there."""

from pathlib import Path

import pytest
import torch

from lightning_bnf.export.folders import finished_folder
from lightning_bnf.training.strategies import AtomicCheckpointIO


def write(folder: Path, text: str, fail: bool = False) -> None:
    with finished_folder(folder) as unfinished:
        (unfinished / "weights").write_text(text)
        if fail:
            raise OSError(28, "No space left on device")


def test_a_folder_appears_whole_and_is_replaced_whole(tmp_path: Path) -> None:
    write(tmp_path / "policy", "first")
    write(tmp_path / "policy", "second")
    assert (tmp_path / "policy" / "weights").read_text() == "second"
    assert (tmp_path / "policy" / "weights").stat().st_mode & 0o777 == 0o644, "others may load what is exported"
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


@pytest.mark.parametrize("before", [None, "first"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    if before:
        write(tmp_path / "policy", before)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "policy", "second", fail=True)
    assert [path.name for path in tmp_path.iterdir()] == (["policy"] if before else [])
    if before:
        assert (tmp_path / "policy" / "weights").read_text() == "first"


def test_a_checkpoint_is_written_whole(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(3)}, tmp_path / "sub" / "x.ckpt")
    assert torch.load(tmp_path / "sub" / "x.ckpt", weights_only=True)["a"].tolist() == [1, 1, 1]
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["x.ckpt"]


def test_a_checkpoint_on_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": 1}, path)

    def full(checkpoint: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"a": 2}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["x.ckpt"]
