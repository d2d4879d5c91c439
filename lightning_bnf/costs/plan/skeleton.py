"""A policy without weights: its modules and the sizes of their tensors, from the model's config alone."""

import copy
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from lightning_bnf.batch import MicroBatch
from lightning_bnf.costs.plan.depth import shortened
from lightning_bnf.policies.base import Policy
from lightning_bnf.policies.layers import decoder_layers_of
from lightning_bnf.policies.skeleton import empty_model
from lightning_bnf.policies.sources import SourceError
from lightning_bnf.runtime.refusal import refusing

P = TypeVar("P", bound=Policy)


def skeleton(policy: P, layers: int | None = None) -> P:
    """A copy of a policy, loaded or not, built on torch's meta device. Nothing but the config is read.

    `layers`: as many decoder layers as are left; all for None. Raises `SourceError` or `PolicyError` as loading it
    would.
    """
    built = copy.deepcopy(policy, {id(policy.model): None})  # the weights are not copied
    built.compiled = False  # a compiler asks for contents
    # Masks of flex attention have contents, which nothing here has: what transformers chooses itself stands for it.
    attention = None if policy.attention == "flex_attention" else policy.attention
    base = empty_model(policy.source, policy.revision, policy.dtype, attention, installed=False)
    told = f"source must be a model whose config transformers builds, got {policy.source!r}"
    with refusing(told, SourceError), torch.device("meta"):
        if layers is not None:
            shortened(base, decoder_layers_of(base), base.config.get_text_config(), layers)
        built.adopt(base)
    return built


def as_fake(module: nn.Module, device: str) -> None:
    """Give a module on the meta device tensors of a device; inside a `FakeTensorMode` they take no memory.

    Parameters that are one, such as tied embeddings, stay one.
    """
    made: dict[Tensor, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter not in made:
                made[parameter] = nn.Parameter(_empty(parameter, device), parameter.requires_grad)
            part._parameters[name] = None if parameter is None else made[parameter]
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else _empty(buffer, device)


def shape_of(batch: MicroBatch, device: str) -> MicroBatch:
    """A micro-batch of the same shapes as far as a policy looks at it, inside a `FakeTensorMode`."""
    inputs = {name: _empty(value, device) for name, value in batch.inputs.items()}
    position, target = _empty(batch.position, device), _empty(batch.target, device)
    sequences = batch.sequences and batch.sequences.map(lambda tensor: _empty(tensor, device))
    return replace(batch, inputs=inputs, position=position, target=target, sequences=sequences)


def _empty(tensor: Tensor, device: str) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
