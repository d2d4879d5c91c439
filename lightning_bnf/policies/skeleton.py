"""A model without weights, on torch's meta device: what a config alone tells."""

import copy
import re
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from lightning_bnf.policies.sources import SourceError, load_config
from lightning_bnf.runtime.refusal import refusing

if TYPE_CHECKING:  # a second of imports, which --help need not take
    from transformers import PreTrainedModel


def empty_model(
    source: str, revision: str | None, dtype: torch.dtype, attention: str | None, installed: bool = True
) -> "PreTrainedModel":
    """The model of a source without weights, as if they were not quantized. Raises `SourceError`.

    `installed`: whether the kernels of `attention` must be here; else another one stands for it.
    """
    config = plain_config(source, revision)
    told = f"source must be a model whose config transformers builds, got {source!r}"
    with refusing(told, SourceError), torch.device("meta"):
        try:
            return _built(config, dtype, attention)
        except ImportError:  # such as flash attention's
            if installed:
                raise
            return _built(config, dtype, None)


def _built(config: PreTrainedConfig, dtype: torch.dtype, attention: str | None) -> "PreTrainedModel":
    own: dict = {"trust_remote_code": False}
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention, **own)


def plain_config(source: str, revision: str | None = None) -> PreTrainedConfig:
    """The config of a source as if its weights were not quantized."""
    config = load_config(source, revision)
    if hasattr(config, "quantization_config"):  # sizes are those of the model, whatever its files hold
        del config.quantization_config
    return config


def tensor_types(model: "PreTrainedModel", dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The types by name that transformers gives a model's weights and buffers when it loads them in `dtype`.

    No rule that a tensor itself tells: frequencies of rotary positions stay float32, a scale of embeddings does not,
    and some mixtures keep their routers' weights.
    """
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):  # eager: attention's kernels may take other types, and no buffer depends on them
        built = type(model)._from_config(config, dtype=dtype, attn_implementation="eager")
    tensors = [*built.named_parameters(remove_duplicate=False), *built.named_buffers(remove_duplicate=False)]
    types = {name: tensor.dtype for name, tensor in tensors}
    for pattern, kept in built._get_dtype_plan(dtype).items():  # what a class names as float32 in any case
        types |= {name: kept for name in types if re.search(pattern.replace("*", ".*"), name)}
    return types
