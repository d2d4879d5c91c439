"""FSDP2: every rank holds a part of each decoder layer, of the embeddings and of the head.

The first rank alone reads a source, and hands out tensor by tensor what each rank keeps: all ranks together never hold
much more than one copy of the weights, in the files' own type where that is the narrower one.
"""

import copy
import gc
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from lightning_bnf.policies.base import Policy, PolicyError
from lightning_bnf.policies.layers import decoder_layers_of
from lightning_bnf.policies.qlora import as_plain_bytes
from lightning_bnf.policies.reference.providers import FrozenCopy
from lightning_bnf.policies.skeleton import empty_model
from lightning_bnf.policies.sources import stored_dtype
from lightning_bnf.runtime.distributed import from_first, on_first, several
from lightning_bnf.runtime.memory import keep_freed_memory


def decoder_layers(policy: Policy) -> list[nn.Module]:
    """The loaded model's decoder layers, found by the classes that it declares itself not to be cut within.

    Raises `PolicyError` where it has none of them.
    """
    model = policy.causal_lm
    layers = decoder_layers_of(model)
    if not layers:
        raise PolicyError(
            f"strategy must be ddp with source {policy.source!r}, whose architecture does not say what its decoder "
            f"layers are (_no_split_modules: {sorted(model._no_split_modules or ()) or 'none'}), got fsdp2"
        )
    return layers


def shard(policy: Policy, mesh: DeviceMesh, mixed: bool) -> None:
    """Shard a loaded policy over a one-dimensional mesh: layer by layer, and what is left with the policy itself.

    With `mixed`, layers are gathered in bfloat16 while gradients are reduced in float32.
    """
    if policy.in_four_bits:
        as_plain_bytes(policy)
    precision = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed else MixedPrecisionPolicy()
    for layer in decoder_layers(policy):
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    fully_shard(policy, mesh=mesh, mp_policy=precision)
    register_fsdp_forward_method(policy, "check_head")


def load_sharded(
    policy: Policy, mesh: DeviceMesh, mixed: bool, device: torch.device, copied: bool
) -> FrozenCopy | None:
    """Load a policy sharded over the mesh, and beside it a frozen copy where it is to be `copied`; every rank calls it.

    A model that the user has loaded is whole on every rank until then, and so is one in 4 bits. Raises what
    `Policy.load` does, on all ranks, and `PolicyError` for a policy that is loaded already.
    """
    if policy.model is not None:
        raise PolicyError(
            f"policy must be one that is not loaded before the run where its weights are sharded (fsdp2), got a "
            f"{type(policy).__name__} that is"
        )
    if device.type == "cpu":
        keep_freed_memory(False, given_back_from=2**17)  # of tensors that are handed out, or gathered for one layer
    weights = None if policy.given or policy.in_four_bits else load_empty(policy)
    policy.load()
    frozen = FrozenCopy(policy) if copied else None
    policies = [policy, *([frozen.policy] if frozen else [])]
    for one in policies:
        shard(one, mesh, mixed)
    if weights is not None:
        fill(policies, weights, device)
    return frozen


def load_empty(policy: Policy) -> dict[str, Tensor]:
    """Build a policy without weights on the meta device; every rank calls it.

    Returns, on the first rank, the weights that it would have been loaded with, for `fill`; elsewhere nothing. Whatever
    error reading ends with, such as `SourceError` or `PolicyError`, is raised on all ranks.
    """

    def read() -> Policy:
        loaded = copy.deepcopy(policy)
        loaded.load(_narrower(policy))
        return loaded

    loaded = on_first(read)
    told = from_first(loaded and (loaded.base_fingerprint, loaded.causal_lm.generation_config))
    weights = {} if loaded is None else _taken(loaded)
    with torch.device("meta"):
        policy.adopt(empty_model(policy.source, policy.revision, policy.dtype, policy.attention))
    policy.base_fingerprint, policy.causal_lm.generation_config = told
    return weights


def fill(policies: Sequence[Policy], weights: dict[str, Tensor], device: torch.device) -> None:
    """Give policies on the meta device, sharded or not, their weights; every rank calls it with copies of one policy.

    weights: those that `load_empty` returned; taken out one by one as they are handed out, so that their memory goes
    """
    each = [_slots(policy) for policy in policies]
    for name in list(each[0]):
        value = _handed_out(name, weights, device)
        for slots in each:
            tensor = slots[name].tensor
            made = _part_of(value, tensor).to(device)
            if isinstance(tensor, nn.Parameter):
                made = nn.Parameter(made, tensor.requires_grad)
            for holder, key in slots[name].places:
                holder[key] = made
    if left := from_first(sorted(weights)):
        raise PolicyError(f"source must be a model that can be built from its config, got one with {left}")


class _Slot:
    """A tensor of a model, and all places where it is held: one for most, several for tied weights."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor
        self.places: list[tuple[dict[str, Any], str]] = []


def _slots(policy: Policy) -> dict[str, _Slot]:
    """Every tensor on the modules of a policy by its first name: parameters, buffers, and plain attributes."""
    found: dict[int, _Slot] = {}
    named: dict[str, _Slot] = {}
    for prefix, module in policy.named_modules():
        for holder in (module._parameters, module._buffers, vars(module)):
            for key, tensor in holder.items():
                if isinstance(tensor, Tensor):
                    if id(tensor) not in found:
                        found[id(tensor)] = named[f"{prefix}.{key}"] = _Slot(tensor)
                    found[id(tensor)].places.append((holder, key))
    return named


def _taken(policy: Policy) -> dict[str, Tensor]:
    """The tensors of a policy, which loses them: whoever lets go of one gives its memory back."""
    slots = _slots(policy)
    for slot in slots.values():
        for holder, key in slot.places:
            holder[key] = None
    gc.collect()
    return {name: slot.tensor.detach() for name, slot in slots.items()}


def _handed_out(name: str, weights: dict[str, Tensor], device: torch.device) -> Tensor:
    """The first rank's tensor of a name, taken out of its weights, whole, on every rank."""
    value = on_first(lambda: weights.pop(name).contiguous().to(device))
    shape, dtype = from_first(value if value is None else (value.shape, value.dtype))
    whole = torch.empty(shape, dtype=dtype, device=device) if value is None else value
    if several():
        dist.broadcast(whole, 0)
    return whole


def _part_of(whole: Tensor, empty: Tensor) -> Tensor:
    """What a rank keeps of a whole tensor in place of an empty one: its own part where that is sharded by rows."""
    if not isinstance(empty, DTensor):
        return whole.to(empty.dtype, copy=True)
    mesh = empty.device_mesh
    parts = whole.chunk(mesh.size())
    rank = mesh.get_local_rank()
    part = parts[rank] if rank < len(parts) else whole[:0]
    held = part.to(empty.dtype, copy=True)
    return DTensor.from_local(held, mesh, empty.placements, run_check=False, shape=empty.shape, stride=empty.stride())


def _narrower(policy: Policy) -> torch.dtype | None:
    """The type of the source's files where a policy widens it to its own and loses nothing by doing so later."""
    stored = None if policy.adapters else stored_dtype(policy.source, policy.revision)  # adapters may begin at sums
    if stored is None or stored.itemsize >= policy.dtype.itemsize:
        return None
    wide, narrow = (
        {name: buffer.dtype for name, buffer in built.named_buffers()}
        for built in (empty_model(policy.source, policy.revision, dtype, None) for dtype in (policy.dtype, stored))
    )
    return stored if wide == narrow else None  # what is computed and not read would be rounded on the way
