"""Full fine-tuning: all weights are trained."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightning_bnf.policies.base import Checkpointing, Dtype, Policy
from lightning_bnf.runtime.arguments import checked

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@checked
class FullPolicy(Policy):
    """All weights of the model are trained."""

    def __init__(
        self,
        source: str,
        revision: str | None = None,
        dtype: Dtype = "float32",
        attention: str | None = None,
        gradient_checkpointing: Checkpointing = False,
        compiled: bool = False,
    ):
        """
        Args:
            source: Hub id, local folder, GGUF file, or `bundled:smollm2-135m-instruct`.
            revision: Commit, tag or branch of a hub id.
            dtype: Type of the weights.
            attention: Attention implementation of transformers (`sdpa`, `eager`, `flex_attention`,
                `flash_attention_2`, ...); null lets it choose.
            gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third more time;
                `offloaded` keeps what each layer begins from in the CPU's memory until then.
            compiled: Have torch compile the decoder layers: a minute or more at the start, then faster on a GPU.
        """
        super().__init__(source, revision, dtype, attention, gradient_checkpointing, compiled)

    def prepared(self, base: "PreTrainedModel") -> nn.Module:
        return base.requires_grad_(True)

    def save(self, folder: str, weights: Mapping[str, Tensor], max_shard_size: str) -> None:
        state = {name.removeprefix("model."): value for name, value in weights.items()}
        self.causal_lm.save_pretrained(folder, state_dict=state, max_shard_size=max_shard_size)
        _name_dtype(Path(folder) / "config.json", next(iter(weights.values())).dtype)  # as `state` may be empty now
        self.tokenizer.save_pretrained(folder)


def _name_dtype(config: Path, dtype: torch.dtype) -> None:
    """transformers names the type of the model's weights, which those that are written may be wider than."""
    held = json.loads(config.read_text(encoding="utf-8"))
    if held.get("dtype") != (name := str(dtype).removeprefix("torch.")):
        config.write_text(json.dumps(held | {"dtype": name}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
