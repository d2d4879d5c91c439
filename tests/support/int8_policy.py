"""A kind of policy that the package does not know: LoRA on a base of 8-bit weights. Its YAML is beside it."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_bnf.policies import LoRAPolicy


class Int8Linear(nn.Linear):
    """A frozen linear layer whose weights are whole numbers from -127 to 127 times one scale for each row."""

    def __init__(self, layer: nn.Linear):
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        scale = layer.weight.abs().amax(1, keepdim=True) / 127
        self.weight = nn.Parameter((layer.weight / scale).round().to(torch.int8), requires_grad=False)
        self.bias = layer.bias
        self.register_buffer("scale", scale)

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight * self.get_buffer("scale"), self.bias)


class Int8LoRAPolicy(LoRAPolicy):
    """LoRA on a base whose linear layers, all but the head, are rounded to 8 bits when it is loaded."""

    references: ClassVar[tuple[str, ...]] = ("adapter_off", "cache")
    shardable: ClassVar[bool] = False

    def prepared(self, base: PreTrainedModel) -> nn.Module:
        for parent in [*base.modules()]:
            for name, layer in [*parent.named_children()]:
                if type(layer) is nn.Linear and layer is not base.get_output_embeddings():
                    setattr(parent, name, Int8Linear(layer))
        return super().prepared(base)
