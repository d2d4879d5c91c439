"""Checkpoints that are cut off, changed or more than numbers are refused, and the last good one is found."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as sharded

from lightning_bnf.training.checkpoints import CheckpointError, check_checkpoint, check_fits, last_good, lies_in, seal


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder / "pwned"),)


WRITTEN: dict[str, Any] = {"global_step": 3, "loss_state": {}, "trainable": {"w": [1000]}, "rng": []}
WRITTEN |= {"meaning": {}, "settings": {}}


def file(path: Path) -> Path:
    torch.save(WRITTEN | {"state_dict": {"policy.w": torch.arange(1000.0)}}, path)
    return path


def folder(path: Path) -> Path:
    sharded.save({"w": torch.arange(1000.0), "n": 3}, checkpoint_id=path, no_dist=True)
    torch.save(WRITTEN, path / "meta.pt")
    seal(path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [file, folder])
def test_a_good_one_is_accepted(tmp_path: Path, make: Any) -> None:
    check_checkpoint(make(tmp_path / "step=3.ckpt"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut, flip, empty])
def test_a_harmed_file_is_refused(tmp_path: Path, harm: Any) -> None:
    path = file(tmp_path / "step=3.ckpt")
    harm(path)
    with pytest.raises(
        CheckpointError, match=r"ckpt_path must be a checkpoint that a run has written to its end, got .*step=3.ckpt"
    ):
        check_checkpoint(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [".metadata", "metadata.sha256", "meta.pt", "__0_0.distcp"])
@pytest.mark.parametrize("harm", [cut, empty, Path.unlink])
def test_a_harmed_folder_is_refused(tmp_path: Path, harm: Any, name: str) -> None:
    path = folder(tmp_path / "step=3.ckpt")
    harm(path / name)
    with pytest.raises(CheckpointError, match=r"ckpt_path must be a .* that a run has written to its end, got"):
        check_checkpoint(path)


@pytest.mark.filterwarnings("ignore")
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "step=3.ckpt"
    torch.save({"state_dict": Evil(tmp_path)}, path)
    with pytest.raises(CheckpointError, match="holds more than tensors and numbers, or is harmed"):
        check_checkpoint(path)
    parts = folder(tmp_path / "step=4.ckpt")
    (parts / ".metadata").write_bytes(pickle.dumps(Evil(tmp_path)))
    seal(parts)
    with pytest.raises(CheckpointError, match="holds more than places of tensors"):
        check_checkpoint(parts)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, name: str) -> None:
    """As another project's runs write them."""
    torch.save({key: value for key, value in WRITTEN.items() if key != name} | {"state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=f"which holds no {name}, so it is not of a run of this version"):
        check_checkpoint(tmp_path / "a.ckpt")
    torch.save([1.0], tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match="which holds no global_step"):
        check_checkpoint(tmp_path / "b.ckpt")


def test_a_tensor_that_is_lacking_or_too_many_is_named() -> None:
    """Whether what is written of them lacks it or the tensors themselves do; and so is another shape."""
    w = torch.zeros(1000)
    check_fits(WRITTEN | {"state_dict": {"policy.w": w}}, {"w": w}, {"w": w})
    check_fits(WRITTEN, {"w": w}, {"w": w})
    check_fits(WRITTEN | {"state_dict": {"policy.w": w, "policy.tied": w}}, {"w": w}, {"w": w, "tied": w})
    with pytest.raises(CheckpointError, match=r"lacks \['w'\], has nothing too many, and of another shape nothing"):
        check_fits(WRITTEN | {"state_dict": {}}, {"w": w}, {"w": w})
    with pytest.raises(CheckpointError, match=r"lacks nothing, has \['v'\] too many"):
        check_fits(WRITTEN | {"state_dict": {"policy.w": w, "policy.v": w}}, {"w": w}, {"w": w})
    with pytest.raises(CheckpointError, match=r"lacks \['v'\], has \['w'\] too many"):
        check_fits(WRITTEN, {"v": w}, {"v": w})
    few = {"w": torch.zeros(4)}
    for checkpoint in (WRITTEN, WRITTEN | {"trainable": {"w": [4]}, "state_dict": {"policy.w": w}}):
        with pytest.raises(CheckpointError, match=r"of another shape \['w \[\d+\], not \[4\]'\]"):
            check_fits(checkpoint, few, few)
    with pytest.raises(CheckpointError, match="ckpt_path must be a checkpoint, which holds no meaning"):
        check_fits({name: value for name, value in WRITTEN.items() if name != "meaning"}, {"w": w}, {"w": w})


def test_the_last_good_one_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps 9, 10 and 20, the last cut off: by number, not by name, it is 10."""
    assert last_good(tmp_path) is None
    for step in (9, 10, 20):
        file(tmp_path / f"step={step}.ckpt")
    cut(tmp_path / "step=20.ckpt")
    (tmp_path / ".step=30.ckpt.unfinished").mkdir()
    assert last_good(tmp_path) == tmp_path / "step=10.ckpt"
    assert "step=20.ckpt, which is cut off" in capsys.readouterr().out


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"ckpt_path must be a checkpoint, or 'last', got .*, where there is none"
    ):
        check_checkpoint(tmp_path / "step=1.ckpt")


def test_a_checkpoint_is_the_runs_in_whose_folder_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the folder itself, whatever names lead there; a name that begins alike is another run's."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (tmp_path / "link").symlink_to(run)
    for path in ("run/checkpoints/a.ckpt", "link/checkpoints/a.ckpt", "run/../run/mine/a.ckpt"):
        assert lies_in(path, run), path
        assert lies_in(path, Path("link")), path
    for other in ("run.1/checkpoints/a.ckpt", "a.ckpt", None):
        assert not lies_in(other, run), other
