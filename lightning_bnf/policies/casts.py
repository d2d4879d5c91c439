"""Casts of frozen weights that are made once, instead of in each pass.

`torch.autocast` casts a linear layer's weight each time that the layer is called, and keeps casts of trained weights
alone, until it ends. Beside adapters nearly all weights are frozen, and casting them can take longer than multiplying
the one token of a few answers that are generated.
"""

from collections.abc import Iterable
from types import MethodType
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_bnf.policies.base import Policy

_KEPT, _ADAPTED = "_kept_cast", "_adapted_by"


class _Kept(NamedTuple):
    """A weight's cast, and what the weight was when it was made."""

    cast: Tensor
    weight: Tensor
    contents: tuple[int, int]  # their place and version, which writing changes but where it goes past autograd (.data)


class KeptCasts(Callback):
    """Keeps the casts of frozen linear layers' weights under autocast, from the first one until `release`, which a run
    calls at its end, however it ends.

    What the layers give is what they gave to the last bit: the same products of the same numbers. Without autocast, and
    inside of a region that switches it off, nothing is different; nor where an adapter is merged into the weight.
    Autograd holds the casts of all layers behind the first adapter at once where the forward pass ends, so the most
    memory that a step takes is what it was, unless activations are recomputed.
    """

    def __init__(self, layers: Iterable[nn.Module] = (), adapters: Iterable[nn.Module] = ()):
        """See `keep`."""
        self._layers: list[nn.Module] = []
        self.keep(layers, adapters)

    def keep(self, layers: Iterable[nn.Module], adapters: Iterable[nn.Module] = ()) -> None:
        """Of these layers, and of those before no more. Those of other kinds than `nn.Linear` itself, with a forward
        method of their own, or cut into parts stay as they are. `adapters`: peft's layers that may be around them."""
        self.release()
        around = {
            id(one.base_layer): one for one in adapters if isinstance(getattr(one, "base_layer", None), nn.Module)
        }
        self._layers = [layer for layer in layers if _is_plain(layer)]
        for layer in self._layers:
            layer.forward = MethodType(_forward, layer)  # a method, so that a copy of the model calls its own
            if id(layer) in around:
                vars(layer)[_ADAPTED] = (around[id(layer)],)  # in a tuple, or it would be a part of the layer

    def release(self) -> None:
        """The layers are as they were found, and the casts' memory is free."""
        for layer in self._layers:
            for name in ("forward", _KEPT, _ADAPTED):
                vars(layer).pop(name, None)
        self._layers = []

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self.release()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Lightning calls no teardown then."""
        self.release()


def cast_layers(policy: Policy, trainer: Trainer | None) -> list[nn.Module]:
    """Layers of a loaded policy whose casts a run keeps: with adapters, the base's from the first that has one on,
    while it is trained. None where activations are recomputed, to save memory that the casts would take; nor where
    layers are compiled, which fuses casts with what follows. On GPUs not the output layer, whose products in training
    are made without its cast.
    """
    if trainer is None or trainer.state.fn != "fit":
        return []
    if not policy.adapters or policy.gradient_checkpointing or policy.compiled:
        return []
    head = policy.causal_lm.get_output_embeddings() if trainer.strategy.root_device.type != "cpu" else None
    adapted = {id(one._modules["base_layer"]) for one in policy.loaded.modules() if "base_layer" in one._modules}
    first = next((i for i, layer in enumerate(policy.base_modules) if id(layer) in adapted), len(policy.base_modules))
    return [layer for layer in policy.base_modules[first:] if layer is not head]


def _is_plain(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and "forward" not in vars(layer) and not isinstance(layer.weight, DTensor)


def _forward(layer: nn.Linear, input: Tensor) -> Tensor:
    return nn.functional.linear(input, _weight(layer), layer.bias)


def _weight(layer: nn.Linear) -> Tensor:
    """The layer's weight, or its cast where autocast would make one and it is frozen."""
    weight, device = layer.weight, layer.weight.device.type
    if weight.requires_grad or weight.dtype != torch.float32 or not torch.is_autocast_enabled(device):
        return weight
    if any(around.merged for around in vars(layer).get(_ADAPTED, ())):  # which peft writes past autograd
        vars(layer).pop(_KEPT, None)
        return weight
    dtype, contents = torch.get_autocast_dtype(device), (weight.data_ptr(), weight._version)
    kept: _Kept | None = vars(layer).get(_KEPT)
    if kept is None or kept.weight is not weight or kept.contents != contents or kept.cast.dtype != dtype:
        with torch.inference_mode(False):  # in which a validation may come first: autograd would refuse its tensors
            kept = vars(layer)[_KEPT] = _Kept(weight.detach().to(dtype), weight, contents)
    return kept.cast
