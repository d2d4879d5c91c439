"""How a run is spread over devices, and checkpoints that are whole or not there."""

import contextlib
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import (
    DDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
    StrategyRegistry,
)
from torch.distributed.checkpoint import CheckpointException

from lightning_bnf.runtime.distributed import gather_objects
from lightning_bnf.runtime.files import hidden_name, put_in_place, replacing, writing
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.checkpoints import seal

Parallelism = Literal["one device", "ddp", "fsdp2"]


class FullySharded(ModelParallelStrategy):
    """FSDP2 over all devices of the run (`strategy: fsdp2`): weights, gradients and moments are shared out.

    Lightning's ModelParallelStrategy with one mesh of all ranks, and checkpoints that take their name only when every
    rank has written its part.
    """

    def setup_environment(self) -> None:
        """One dimension of the mesh, of all ranks: Lightning's own default shards within a node only, and by tensor."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Raises `Refusal` before the first step where a node would write its part of a checkpoint for itself."""
        super().setup(trainer)
        if self.num_nodes > 1 and trainer.state.fn == "fit":
            check_shared(Path(trainer.default_root_dir), self.is_global_zero)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """A folder with a file of every rank, written under another name and renamed."""
        target = Path(self.broadcast(filepath))
        unfinished = Path(self.broadcast(hidden_name(target)))
        try:
            with writing(target):
                try:
                    super().save_checkpoint(checkpoint, unfinished, storage_options)
                except CheckpointException as error:  # on all ranks, of any; no Exception by torch's choice
                    raise next(iter(error.failures.values()))[0] from error
                self.barrier()
                if self.is_global_zero:
                    seal(unfinished)
                    put_in_place(unfinished, target)
        finally:
            if self.is_global_zero:
                shutil.rmtree(unfinished, ignore_errors=True)
        self.barrier()


def check_shared(folder: Path, first: bool) -> None:
    """Raises `Refusal`, on all ranks, where a rank does not see what the `first` one writes into the folder: a
    checkpoint is of all ranks' parts."""
    (marker, *_) = gather_objects(str(hidden_name(folder / "shared")))
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        Path(marker).touch()
    gather_objects(None)  # when it is there
    seen = gather_objects(Path(marker).exists())
    if first:
        Path(marker).unlink()
    if not all(seen):
        raise Refusal(
            f"trainer.default_root_dir must be a folder that all nodes share, with fsdp2, got {folder}, which "
            f"{seen.count(False)} of {len(seen)} ranks see as another"
        )


StrategyRegistry.register("fsdp2", FullySharded, description="FSDP2 over all devices", override=True)


def parallelism_of(strategy: Strategy) -> Parallelism:
    """What a Trainer's strategy comes to; raises ValueError for those that no test shows the results of."""
    if isinstance(strategy, FullySharded):
        return "fsdp2"
    spawned = isinstance(strategy, DDPStrategy) and strategy._start_method == "spawn"
    if type(strategy) is DDPStrategy and not spawned:  # what is spawned is pickled first, and a run cannot be
        return "ddp"
    if isinstance(strategy, SingleDeviceStrategy):
        return "one device"
    raise Refusal(f"strategy must be auto, ddp or fsdp2, got {'ddp_spawn' if spawned else type(strategy).__name__}")


def refuse_sharded(strategy: Strategy, what: str) -> None:
    """Raises `Refusal` under FSDP2, for what generates: one process draws the completions."""
    if parallelism_of(strategy) == "fsdp2":
        raise Refusal(
            f"{what}: strategy must be ddp or one device, since one process generates and needs all weights, got fsdp2"
        )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary name in the same folder and renames; a full disk leaves nothing half-written behind.

    Lightning's own writes the whole checkpoint into memory first, or by way of the system's temporary folder, which may
    be small and on another disk, so that no rename is possible.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(Path(path)) as unfinished, unfinished.open("wb") as file:
            torch.save(checkpoint, file)


def forward_context(module: LightningModule) -> AbstractContextManager[None]:
    """What a training step's forward pass runs inside, such as autocast, for passes outside of steps; nothing where the
    module has no Trainer."""
    trainer = module._trainer
    return contextlib.nullcontext() if trainer is None else trainer.precision_plugin.forward_context()
