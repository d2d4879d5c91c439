"""What the ranks of a run tell each other."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from lightning_bnf.runtime.refusal import Refusal

T = TypeVar("T")


class Gathered(NamedTuple):
    """values: of all ranks in their order, (M, ...); first: where this rank's own begin."""

    values: Tensor
    first: int


def several() -> bool:
    """Whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def ranks() -> int:
    """How many ranks the run has; 1 where this process is alone."""
    return dist.get_world_size() if several() else 1


def gather_objects(value: Any) -> list[Any]:
    """The values of all ranks in their order. Alone: this one's."""
    if not several():
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def from_first(value: Any) -> Any:
    """The first rank's value. Alone: the value itself."""
    if not several():
        return value
    sent = [value]
    dist.broadcast_object_list(sent)
    return sent[0]


def on_first(work: Callable[[], T]) -> T | None:
    """What `work` gives on the first rank, where alone it is done; None elsewhere. Every rank calls it.

    Raises its error on all ranks, which would wait for the first one in vain: a refusal as it is, of any other the
    name and the words.
    """
    made: T | None = None
    error: Exception | None = None
    if not several() or dist.get_rank() == 0:
        try:
            made = work()
        except Exception as caught:
            error = caught
    refused = isinstance(error, Refusal)
    told = from_first(error if error is None or refused else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    if isinstance(told, Refusal):
        raise told
    if told is not None:
        raise RuntimeError(f"the first rank ended with {told}")
    return made


def gather(values: Tensor) -> Gathered:
    """Join the (n, ...) tensors of all ranks, of which each may have another n. Alone: the tensor itself."""
    if not several():
        return Gathered(values, 0)
    lengths = [torch.zeros(1, dtype=torch.long, device=values.device) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, torch.tensor([len(values)], device=values.device))
    counts = [int(length) for length in lengths]
    padded = values.new_zeros((max(counts), *values.shape[1:]))
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    rank = dist.get_rank()
    return Gathered(torch.cat([part[:count] for part, count in zip(parts, counts)]), sum(counts[:rank]))


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, or the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor of all ranks' parts. Every rank must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 has cut the module's weights into parts."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


def reshard(module: nn.Module) -> None:
    """Give every rank its own part of the weights again: a pass that no backward pass follows leaves what FSDP2's root
    holds as it was gathered, whole and in the type that is computed in."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
