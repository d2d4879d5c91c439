"""A model's decoder layers: which they are, compiling them, and where what they begin from is kept."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from lightning_bnf.policies.sequence_attention import keep_from_compilers

if TYPE_CHECKING:  # a second of imports, which the command line's --help has no use for
    from transformers import PreTrainedModel


def decoder_layers_of(model: "PreTrainedModel") -> list[nn.Module]:
    """The decoder layers of a transformers model, or none."""
    names = set(model._no_split_modules or ())
    found = [module for module in model.modules() if type(module).__name__ in names]
    inner = {part for module in found for part in module.modules() if part is not module}
    return [module for module in found if module not in inner]


def compile_layers(model: "PreTrainedModel") -> None:
    """Have torch compile the decoder layers, for any number of tokens, when they are first run. Layers of one kind
    share what is compiled."""
    keep_from_compilers()
    for layer in decoder_layers_of(model):
        layer.compile(dynamic=True)


def kept_on_cpu(planned: bool) -> AbstractContextManager[object]:
    """Inside, what is saved for the backward pass goes to the memory of the CPU, and comes back when that is made.

    Under gradient checkpointing that is what each layer begins from, and little else. planned: of fake tensors, which
    stand for a GPU's: then it is nowhere.
    """
    if planned:
        return saved_tensors_hooks(_shape_of, _made)
    return save_on_cpu(pin_memory=torch.cuda.is_available())


def _shape_of(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


def _made(shape: tuple[torch.Size, torch.dtype, torch.device]) -> Tensor:
    size, dtype, device = shape
    return torch.empty(size, dtype=dtype, device=device)
