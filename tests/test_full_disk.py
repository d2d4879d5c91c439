"""A disk that fills in the middle of a write: the path is named, nothing is half-written, and all goes on after."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.cache import MANIFEST, A, B, filled
from support.disk import room_for

from lightning_bnf.callbacks import RunLogger
from lightning_bnf.export.folders import finished_folder
from lightning_bnf.policies.reference.store import LogpsCache
from lightning_bnf.runtime.files import Unwritable, append, replacing, write_text
from lightning_bnf.runtime.jsonl import JsonlStore
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.strategies import AtomicCheckpointIO

TENSORS = {"w": torch.arange(5000.0), "v": torch.ones(300)}
KEY = bytes(15) + b"x"


def checkpoint(folder: Path) -> Path:
    AtomicCheckpointIO().save_checkpoint({"state_dict": TENSORS}, folder / "step=1.ckpt")
    return folder / "step=1.ckpt"


def export(folder: Path) -> Path:
    with finished_folder(folder / "policy") as unfinished:
        save_file(TENSORS, unfinished / "adapter_model.safetensors")
    return folder / "policy"


def text(folder: Path) -> Path:
    write_text(folder / "scores.json", "x" * 20_000)
    return folder / "scores.json"


def cache(folder: Path) -> Path:
    LogpsCache(folder, MANIFEST).add([KEY], [torch.ones(5000)])
    return folder / "values-0.f32"


def answers(folder: Path) -> Path:
    JsonlStore(folder / "answers.jsonl").add({"new": {"text": "x" * 20_000}})
    return folder / "answers.jsonl"


def metrics(folder: Path) -> Path:
    RunLogger(folder).log_metrics({f"train/{i}": 1.0 for i in range(2000)}, 1)
    return folder / "metrics.csv"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [100, 600, 5000, 15_000])
@pytest.mark.parametrize("write", [checkpoint, export, text, cache, answers, metrics])
def test_what_was_there_stays_whole(tmp_path: Path, write: Callable[[Path], Path], size: int) -> None:
    """Of a file of 20,000 bytes there is room for some. Before it something else of the kind is there already."""
    if write is cache:
        filled(tmp_path)
    elif write is answers:
        JsonlStore(tmp_path / "answers.jsonl").add({"old": {"text": "y"}})
    else:
        RunLogger(tmp_path).log_metrics({"train/0": 0.5}, 0)
    before = contents(tmp_path)
    with pytest.raises(Unwritable) as refused, room_for(size):
        write(tmp_path)
    assert contents(tmp_path) == before
    path = write(tmp_path)
    assert str(refused.value) == f"{path} must be on a disk with room where it may be written, got: File too large"
    assert path.exists()
    if write is cache:
        assert LogpsCache(tmp_path, MANIFEST).get([KEY, A, B], "xab")[:1].tolist() == [1.0]
    if write is answers:
        assert JsonlStore(path)["old"] == {"text": "y"}
        assert len(JsonlStore(path)["new"]["text"]) == 20_000


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (PermissionError(errno.EACCES, "no"), True),
        (PermissionError(errno.EACCES, "no", "/etc/shadow"), False),
        (FileNotFoundError(errno.ENOENT, "none"), False),
        (KeyError("a"), False),
        (Refusal("b must be c, got d"), False),
    ],
)
def test_only_the_disks_own_errors_are_told_as_such(tmp_path: Path, error: Exception, refused: bool) -> None:
    """What else goes wrong inside is told as it is: a bug, another file, a refusal."""
    with pytest.raises(Unwritable if refused else type(error)) as caught, replacing(tmp_path / "a"):
        raise error
    assert (caught.value is error) != refused
    assert isinstance(caught.value, Unwritable) == refused


def test_appended_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    append(path, b"one")
    with pytest.raises(Unwritable), room_for(5):
        append(path, b"three")
    append(path, b"two")
    assert path.read_bytes() == b"onetwo"
