"""A loaded model in another type than it was loaded in, as under `trainer.precision: bf16-true`."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from lightning_bnf.policies.skeleton import buffer_types

if TYPE_CHECKING:  # a second of imports, which the command line's --help has no use for
    from transformers import PreTrainedModel


class OwnBufferTypes(nn.Module):
    """A module around a transformers model, whose weights alone take the type that the module is converted to.

    Buffers get the type that transformers gives them beside such weights: `Module.to` would round the frequencies of
    rotary positions to 8 bits, and whoever loads what was trained computes with exact ones.
    """

    model: nn.Module | None

    @property
    def causal_lm(self) -> "PreTrainedModel":
        """The transformers model inside, where `model` is there."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Any], recurse: bool = True) -> Self:
        buffers = {} if self.model is None else {buffer: name for name, buffer in self.causal_lm.named_buffers()}
        types = cache(lambda dtype: buffer_types(self.causal_lm, dtype))

        def applied(tensor: Tensor) -> Any:
            made = fn(tensor)
            if tensor not in buffers or made.dtype == tensor.dtype:
                return made
            name = buffers[tensor].replace(".base_layer", "")  # peft's, of a layer with an adapter
            return tensor.to(made.device, types(made.dtype).get(name, made.dtype))

        return super()._apply(applied, recurse)
