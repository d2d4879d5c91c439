"""A deep model's step from those of two shallow ones: its layers repeat, and each takes what the one before it does.

A step of a model of 32 layers takes tens of seconds on fake tensors, of six a few. What is alive at a moment of the
step grows by the same bytes with every layer that is added: at a moment that lies so many layers after the beginning of
a pass, and at one that lies so many before its end. Between these two it changes evenly from layer to layer, so that
the most there is lies at one of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn
from transformers import PreTrainedConfig

LONGEST_PERIOD = 8


class Moment(NamedTuple):
    """A stretch of the step, from layer to layer: the most bytes taken in it beside what is there before the step, and
    the gradients among them."""

    bytes: int
    gradients: int


class Depths(NamedTuple):
    """Layers of two shallow models that stand for one of `whole` layers."""

    less: int
    more: int
    whole: int

    def line(self, less: int, more: int) -> int:
        """What is at the whole depth where it was so much at the two others."""
        added, periods = more - less, (self.whole - self.more) // (self.more - self.less)
        return more + added * periods

    def peak(self, less: Sequence[Moment], more: Sequence[Moment]) -> Moment:
        """The highest moment of a pass at the whole depth, from all moments of the same pass at the two others."""
        half = (len(less) + 1) // 2
        pairs = [*zip(less[:half], more[:half]), *zip(less[-half:], more[-half:])]
        return max(Moment(*(self.line(*both) for both in zip(one, other))) for one, other in pairs)


def depths_of(layers: Sequence[nn.Module], config: PreTrainedConfig) -> Depths | None:
    """Two depths whose layers are the first ones of these, and end as these do; None where the layers do not repeat,
    or are so few that nothing would be saved."""
    count = len(layers)
    looks = [_look(layer, index, config) for index, layer in enumerate(layers)]
    period = next((p for p in range(1, LONGEST_PERIOD + 1) if looks[p:] == looks[:-p]), None)
    if period is None or config.num_hidden_layers != count:
        return None
    less = count % period + period * -(-max(3 - count % period, 2 * period) // period)
    more = less + period
    return Depths(less, more, count) if more + less < count else None


def _look(layer: nn.Module, index: int, config: PreTrainedConfig) -> tuple:
    """All that tells a layer from others: its tensors, and what the config says of its attention."""
    tensors = [(name, tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in layer.named_parameters()]
    kinds = getattr(config, "layer_types", None)
    return (tensors, kinds[index] if kinds else None)


def shortened(model: nn.Module, layers: Sequence[nn.Module], config: PreTrainedConfig, count: int) -> None:
    """Leave a model its first `count` layers."""
    for part in model.modules():
        if isinstance(part, nn.ModuleList) and len(part) == len(layers) and part[0] is layers[0]:
            del part[count:]
    config.num_hidden_layers = count
