"""A loaded model in another type than it was loaded in, as under `trainer.precision: bf16-true`."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_bnf.policies.skeleton import tensor_types

if TYPE_CHECKING:  # a second of imports, which the command line's --help has no use for
    from transformers import PreTrainedModel


class OwnTypes(nn.Module):
    """A module around a transformers model, whose tensors take the types that transformers gives them when it loads the
    model in the type that the module is converted to.

    `Module.to` would round all of them, also the frequencies of rotary positions and the routers' weights that some
    mixtures keep in float32; and whoever loads what was trained computes with exact ones. Weights that are all trained
    and sharded take the one type, as FSDP2 shares out no others; and so do those of a frozen copy of such a policy,
    which would not be what it began as.
    """

    adapters: ClassVar[bool]
    model: nn.Module | None

    @property
    def causal_lm(self) -> "PreTrainedModel":
        """The transformers model inside, where `model` is there."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Any], recurse: bool = True) -> Self:
        base = None if self.model is None else self.causal_lm
        names = {} if base is None else {held: name for name, held in (*base.named_parameters(), *base.named_buffers())}
        types = cache(lambda dtype: tensor_types(self.causal_lm, dtype))

        def applied(tensor: Tensor) -> Any:
            made = fn(tensor)
            of_one_type = isinstance(tensor, DTensor) and not self.adapters
            if tensor not in names or made.dtype == tensor.dtype or of_one_type:
                return made
            name = names[tensor].replace(".base_layer", "")  # peft's, of a layer with an adapter
            return tensor.to(made.device, types(made.dtype).get(name, made.dtype))

        return super()._apply(applied, recurse)
