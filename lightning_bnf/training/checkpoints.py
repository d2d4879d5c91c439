"""Checkpoints on disk: which is the last good one, and whether one can be trusted before anything is built for it."""

import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from lightning_bnf.runtime.fingerprints import file_fingerprint
from lightning_bnf.runtime.refusal import Refusal

_METADATA, _OTHER = ".metadata", "meta.pt"  # of a sharded checkpoint: what lies where, and all that is no tensor
_SEAL = "metadata.sha256"
WRITTEN = ("global_step", "loss_state", "trainable", "rng", "meaning", "settings")
"""What every checkpoint of a run holds beside tensors."""

_SAFE_MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_SAFE_NAMES = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("collections", "OrderedDict"),
    ("builtins", "set"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
}


class CheckpointError(Refusal):
    """A checkpoint that is not there, not whole, or not only weights; the message says which and what is accepted."""


def check_checkpoint(path: Path) -> None:
    """Raises `CheckpointError` unless the file or sharded folder is whole and holds nothing but tensors and numbers."""
    if path.is_dir():
        _check_sharded(path)
    elif path.is_file():
        _check_file(path)
    else:
        raise CheckpointError(f"ckpt_path must be a checkpoint, or 'last', got {path}, where there is none")


def check_fits(checkpoint: Mapping[str, Any], trainable: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raises `CheckpointError` unless a checkpoint's tensors are those that the policy trains.

    `state` holds them under all of their names: tied weights have several. What a run has written down of them is not
    taken for it where the tensors themselves are at hand: those of a sharded folder are looked for by torch's own
    reader.
    """
    check_written(checkpoint, "ckpt_path must be a checkpoint")
    compared = [(shapes_of(trainable), checkpoint["trainable"])]
    if "state_dict" in checkpoint:
        held = {name.removeprefix("policy."): value for name, value in checkpoint["state_dict"].items()}
        compared.append((shapes_of(state), shapes_of(held)))
    for wanted, shapes in compared:
        lacking, more = sorted(set(wanted) - set(shapes)), sorted(set(shapes) - set(wanted))
        others = [
            f"{name} {shapes[name]}, not {wanted[name]}"
            for name in wanted
            if shapes.get(name, wanted[name]) != wanted[name]
        ]
        if lacking or more or others:
            raise CheckpointError(
                "the checkpoint must have the tensors that this policy trains, got one that lacks "
                f"{lacking[:3] or 'nothing'}, has {more[:3] or 'nothing'} too many, and of another shape "
                f"{others[:3] or 'nothing'}; use the config that was saved with the run"
            )


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The whole tensors' shapes, by name."""
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def check_written(content: Any, wanted: str) -> None:
    """Raises `CheckpointError`, which `wanted` begins, where what a run writes into every checkpoint is not there."""
    lacking = [name for name in WRITTEN if name not in content] if isinstance(content, dict) else WRITTEN
    if lacking:
        raise CheckpointError(f"{wanted}, which holds no {lacking[0]}, so it is not of a run of this version")


def last_good(folder: Path) -> Path | None:
    """The checkpoint of the latest step in a folder that is whole; None where there is none."""
    for path in sorted(folder.glob("*.ckpt"), key=_step, reverse=True):
        try:
            check_checkpoint(path)
        except CheckpointError as error:
            print(f"{error}; going back to the one before")
            continue
        return path
    return None


def lies_in(path: str | None, folder: Path) -> bool:
    """Whether a checkpoint is of the run in `folder`: it lies anywhere in it, as a ModelCheckpoint of the user's may
    have a place of its own. None, no checkpoint, is of no run."""
    return path is not None and folder.resolve() in Path(path).resolve().parents


def _step(path: Path) -> tuple[int, float]:
    found = re.search(r"step=(\d+)", path.name)
    return int(found[1]) if found else -1, path.stat().st_mtime


def _check_file(path: Path) -> None:
    wanted = f"ckpt_path must be a checkpoint that a run has written to its end, got {path}"
    with path.open("rb") as file:
        _check_archive(file, wanted)
    check_written(_read(path, wanted), wanted)


def _read(file: Path | IO[bytes], wanted: str) -> Any:
    """What torch reads there, without the tensors' numbers; its reader minds bytes that no checksum covers."""
    try:
        return torch.load(file, map_location="meta", weights_only=True)
    except Exception:  # without torch's own words, which advise to load it all the same
        raise CheckpointError(
            f"{wanted}, which holds more than tensors and numbers, or is harmed: loading it could run code"
        ) from None


def _check_archive(file: IO[bytes], wanted: str) -> None:
    """By the checksums of a zip archive, which torch writes and does not read."""
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except Exception as error:  # whatever harmed bytes come to
        raise CheckpointError(f"{wanted}, which is cut off, changed or no checkpoint") from error
    if broken:
        raise CheckpointError(f"{wanted}, of which {broken} was changed after it was written")


class _MetadataUnpickler(pickle.Unpickler):
    """Reads what says where the tensors lie and refuses all else; torch itself would unpickle whatever is there."""

    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if module in _SAFE_MODULES or (module, name) in _SAFE_NAMES or dtype:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


def seal(folder: Path) -> None:
    """Write down what a sharded checkpoint's places are, as nothing in it does: called when all else is written."""
    (folder / _SEAL).write_text(file_fingerprint(folder / _METADATA) + "\n")


def _check_sharded(folder: Path) -> None:
    wanted = f"ckpt_path must be a folder that a run has written to its end, got {folder}"
    for name in (_METADATA, _OTHER, _SEAL):
        if not (folder / name).is_file():
            raise CheckpointError(f"{wanted}, which lacks {name}")
    if (folder / _SEAL).read_bytes().strip() != file_fingerprint(folder / _METADATA).encode():
        raise CheckpointError(f"{wanted}, whose {_METADATA} was changed after it was written")
    try:
        metadata = _MetadataUnpickler(io.BytesIO((folder / _METADATA).read_bytes())).load()
        places = [(str(at.relative_path), int(at.offset), int(at.length)) for at in metadata.storage_data.values()]
    except Exception as error:
        raise CheckpointError(
            f"{wanted}, whose {_METADATA} is broken or holds more than places of tensors ({error})"
        ) from error
    for name, offset, length in places:
        part = folder / name
        size = part.stat().st_size if Path(name).name == name and part.is_file() else 0
        if size < offset + length:
            raise CheckpointError(f"{wanted}, of which {name} is lacking or cut off")
        with part.open("rb") as file:
            file.seek(offset)
            archive = io.BytesIO(file.read(length))
        _check_archive(archive, wanted)
        archive.seek(0)
        _read(archive, wanted)
    _check_file(folder / _OTHER)


def rng_state() -> dict[str, Tensor]:
    """What torch draws from on this rank, dropout's numbers: Lightning's checkpoints hold none of it."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"device": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else state


def set_rng_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Draw on as `rng_state` was."""
    torch.set_rng_state(state["cpu"].cpu())
    if "device" in state:
        torch.cuda.set_rng_state(state["device"].cpu(), device)
