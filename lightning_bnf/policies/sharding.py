"""FSDP2: every rank holds a part of each decoder layer, of the embeddings and of the head."""

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from lightning_bnf.policies.base import Policy, PolicyError

if TYPE_CHECKING:  # a second of imports, which the command line's --help has no use for
    from transformers import PreTrainedModel


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


def decoder_layers_of(model: "PreTrainedModel") -> list[nn.Module]:
    """The decoder layers of a transformers model, or none."""
    names = set(model._no_split_modules or ())
    found = [module for module in model.modules() if type(module).__name__ in names]
    inner = {part for module in found for part in module.modules() if part is not module}
    return [module for module in found if module not in inner]


def shard(policy: Policy, mesh: DeviceMesh, mixed: bool) -> None:
    """Shard a loaded policy over a one-dimensional mesh: layer by layer, and what is left with the policy itself.

    With `mixed`, layers are gathered in bfloat16 while gradients are reduced in float32.
    """
    precision = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed else MixedPrecisionPolicy()
    for layer in decoder_layers(policy):
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    fully_shard(policy, mesh=mesh, mp_policy=precision)
    register_fsdp_forward_method(policy, "check_head")
