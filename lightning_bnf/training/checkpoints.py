"""Checkpoints on disk: which is the last good one, and whether one can be trusted before anything is built for it."""

import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_bnf.runtime.refusal import Refusal

_METADATA, _OTHER = ".metadata", "meta.pt"  # of a sharded checkpoint: what lies where, and all that is no tensor
WRITTEN = ("global_step", "loss_state", "trainable", "rng")
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


def check_fits(checkpoint: Mapping[str, Any], trainable: Mapping[str, Tensor]) -> None:
    """Raises `CheckpointError` unless a checkpoint's tensors are those that the policy trains.

    What a run has written down of them is not taken for it where the tensors themselves are at hand: those of a sharded
    folder are looked for by torch's own reader.
    """
    held = [set(checkpoint["trainable"])]
    if "state_dict" in checkpoint:
        held.append({name.removeprefix("policy.") for name in checkpoint["state_dict"]})
    for names in held:
        if names != set(trainable):
            lacking, more = sorted(set(trainable) - names), sorted(names - set(trainable))
            raise CheckpointError(
                f"the checkpoint does not fit this policy: it lacks {lacking[:3] or 'nothing'} and has "
                f"{more[:3] or 'nothing'} too many; use the config that was saved with the run"
            )


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


def _step(path: Path) -> tuple[int, float]:
    found = re.search(r"step=(\d+)", path.name)
    return int(found[1]) if found else -1, path.stat().st_mtime


def _check_file(path: Path) -> None:
    wanted = f"ckpt_path must be a checkpoint that a run has written to its end, got {path}"
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise CheckpointError(f"{wanted}, which is cut off or no checkpoint") from error
    if broken:
        raise CheckpointError(f"{wanted}, of which {broken} was changed after it was written")
    try:
        content = torch.load(path, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{wanted}, which holds more than tensors and numbers: loading it could run code"
        ) from error
    lacking = [name for name in WRITTEN if name not in content] if isinstance(content, dict) else WRITTEN
    if lacking:
        raise CheckpointError(f"{wanted}, which holds no {lacking[0]}, so it is not of a run of this package")


class _MetadataUnpickler(pickle.Unpickler):
    """Reads what says where the tensors lie and refuses all else; torch itself would unpickle whatever is there."""

    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if module in _SAFE_MODULES or (module, name) in _SAFE_NAMES or dtype:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


def _check_sharded(folder: Path) -> None:
    wanted = f"ckpt_path must be a folder that a run has written to its end, got {folder}"
    for name in (_METADATA, _OTHER):
        if not (folder / name).is_file():
            raise CheckpointError(f"{wanted}, which lacks {name}")
    try:
        metadata = _MetadataUnpickler(io.BytesIO((folder / _METADATA).read_bytes())).load()
        places = metadata.storage_data.values()
    except Exception as error:
        raise CheckpointError(
            f"{wanted}, whose {_METADATA} is broken or holds more than places of tensors ({error})"
        ) from error
    for place in places:
        part = folder / place.relative_path
        size = part.stat().st_size if part.is_file() else 0
        if size < place.offset + place.length:
            raise CheckpointError(f"{wanted}, of which {place.relative_path} is lacking or cut off")
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
