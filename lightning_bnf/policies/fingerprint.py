"""What tells models and tokenizers apart, in a few hex digits."""

import hashlib
import json
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lightning_bnf.policies.parallel import whole


def content_hash(content: Any) -> str:
    """16 hex digits of the content's SHA-256; equal content, equal id, in any file and order."""
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def weights_fingerprint(model: torch.nn.Module, frozen_only: bool = False) -> str:
    """16 hex digits over every parameter's name, shape and 64 of its values: tells models apart, proves nothing.

    The names are those of the model without adapters around it; `frozen_only` leaves trainable parameters out. Of 4-bit
    weights the blocks' scales count too. Of sharded weights the whole counts, so that every rank has to call this.
    """
    parts: list[list[Any]] = []
    for name, parameter in model.named_parameters():
        if not (frozen_only and parameter.requires_grad):
            plain = name.replace("base_model.model.", "").replace(".base_layer", "")
            parts.append([plain, list(parameter.shape), _some(parameter)])
            quantized = getattr(parameter, "quant_state", None)
            if quantized is not None:
                scales = {name: value for name, value in quantized.as_dict().items() if "absmax" in name}
                parts.append([plain, quantized.quant_type, {name: _some(value) for name, value in scales.items()}])
    return content_hash(parts)


def _some(values: torch.Tensor) -> list[float]:
    values = whole(values.detach()).flatten()
    return values[:: max(1, len(values) // 64)].float().tolist()


def tokenizer_fingerprints(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Of the vocabulary, and of the chat template."""
    return {"tokenizer": content_hash(tokenizer.get_vocab()), "template": content_hash(tokenizer.chat_template)}
