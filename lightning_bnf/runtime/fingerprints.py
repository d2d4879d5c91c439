"""What tells models, tokenizers, files and completions apart, in a few bytes."""

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

if TYPE_CHECKING:  # late: processes that tokenize need no torch, which takes 0.2 GB in each
    import torch
    from transformers import PreTrainedConfig

Numbers = Sequence[int] | NDArray[Any]


def content_hash(content: Any) -> str:
    """16 hex digits of the content's SHA-256; equal content, equal id, in any file and order."""
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def weights_fingerprint(model: "torch.nn.Module", frozen_only: bool = False, dtype: "torch.dtype | None" = None) -> str:
    """16 hex digits over every parameter's name, shape and 64 of its values: tells models apart, proves nothing.

    dtype: that of the weights once they are converted, if they are to be; what is packed is not.

    The names are those of the model without adapters around it; `frozen_only` leaves trainable parameters out. Of 4-bit
    weights the blocks' scales count too. Of sharded weights the whole counts, so that every rank has to call this.
    """
    import torch

    from lightning_bnf.runtime.distributed import whole

    parts: list[list[Any]] = []
    for name, parameter in model.named_parameters():
        if not (frozen_only and parameter.requires_grad):
            plain = name.replace("base_model.model.", "").replace(".base_layer", "")
            quantized, tensor = getattr(parameter, "quant_state", None), parameter.detach()
            if quantized is None and name.endswith(".weight"):  # FSDP2 cuts the bytes as plain numbers of 16 bits
                quantized = getattr(model.get_submodule(name.removesuffix(".weight")), "quant_state", None)
                tensor = tensor if quantized is None else whole(tensor).flatten().view(torch.uint8)[:, None]
            if dtype is not None and quantized is None and tensor.is_floating_point():
                tensor = tensor.to(dtype)
            parts.append(fingerprint_part(plain, tensor))
            if quantized is not None:
                scales = {name: value for name, value in quantized.as_dict().items() if "absmax" in name}
                parts.append([plain, quantized.quant_type, {name: _some(value) for name, value in scales.items()}])
    return content_hash(parts)


def fingerprint_part(name: str, tensor: "torch.Tensor") -> list[Any]:
    """What a tensor adds to the fingerprint of its model: the hash of the list of all of them."""
    return [name, list(tensor.shape), _some(tensor)]


def _some(values: "torch.Tensor") -> list[float]:
    from lightning_bnf.runtime.distributed import whole

    values = whole(values.detach()).flatten()
    return values[:: max(1, len(values) // 64)].float().tolist()


_UNREAD = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache"}
"""Entries of a model's config that change no log-prob, or are said elsewhere."""


def config_entries(config: "PreTrainedConfig") -> dict[str, str]:
    """What a model's config says that can change log-probs, as JSON by name: weights alone do not tell models apart."""
    entries = config.to_diff_dict().items()
    return {
        name: json.dumps(value, sort_keys=True, default=str)
        for name, value in entries
        if name not in _UNREAD and value is not None
    }


def config_fingerprint(config: "PreTrainedConfig") -> str:
    """16 hex digits of a model's config."""
    return content_hash(config_entries(config))


def tokenizer_fingerprints(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Of the vocabulary, and of the chat template."""
    return {"tokenizer": content_hash(tokenizer.get_vocab()), "template": content_hash(tokenizer.chat_template)}


def tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """All that token ids and rendered texts depend on, as JSON: vocabulary, merges, normalizer, pre-tokenizer, what is
    added around a text, special tokens, template. Not how the last call cut and padded."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = _uncut(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    added = {number: repr(token) for number, token in tokenizer.added_tokens_decoder.items()}
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    sample = tokenizer("a b")["input_ids"]  # whether a BOS is added is no part of every backend
    return [type(tokenizer).__name__, whole, added, special, tokenizer.chat_template, sample]


def _uncut(text: str) -> Any:
    """A tokenizer's JSON without how the last call cut and padded. That stands at its beginning, so that the megabytes
    of the vocabulary need not be read."""
    head, name, rest = text.partition(_BEHIND_CUT)
    try:
        if name and set(json.loads(head + "}")) <= {"version", *_CUT}:
            return rest
    except ValueError:
        pass  # it is no end of an object: another order
    return {name: part for name, part in json.loads(text).items() if name not in _CUT}


_CUT = ("truncation", "padding")
_BEHIND_CUT = ',"added_tokens":'


def file_fingerprint(path: str | Path) -> str:
    """16 hex digits of the SHA-256 of a file's contents."""
    hashed = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(2**20):
            hashed.update(piece)
    return hashed.hexdigest()[:16]


def content_key(prompt_ids: Numbers, ids: Numbers, completion_mask: Numbers) -> bytes:
    """16 bytes that stand for a prompt, the completion after it, and which of its tokens are scored."""
    hashed = hashlib.sha256(struct.pack("<II", len(prompt_ids), len(ids)))
    hashed.update(np.asarray(prompt_ids, dtype="<u4").tobytes())
    hashed.update(np.asarray(ids, dtype="<u4").tobytes())
    hashed.update(np.asarray(completion_mask, dtype=bool).tobytes())
    return hashed.digest()[:16]
