"""What a model's attention is told of a micro-batch: which token sees which, in the form that its kernel takes."""

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from lightning_bnf.batch import MicroBatch


def is_flash(implementation: str) -> bool:
    """Whether transformers' name of an attention is one of FlashAttention's kernels, its own or one of the hub's."""
    return "flash" in implementation


def model_inputs(batch: MicroBatch, implementation: str, dtype: torch.dtype) -> dict[str, Any]:
    """The micro-batch as arguments of a transformers model.

    implementation: transformers' name of the attention, such as sdpa; dtype: of masks that are added to scores
    """
    inputs: dict[str, Any] = dict(batch.inputs)
    segments = inputs.pop("segments", None)
    if segments is not None:
        inputs["attention_mask"] = _mask(segments, implementation, dtype)
    elif batch.sequence_lengths and is_flash(implementation):
        inputs |= _ends(batch.sequence_lengths, inputs["input_ids"].device)
    return inputs


def sees(segments: Tensor) -> Tensor:
    """(rows, T) segments, 0 the prompt, k its k-th completion, -1 padding -> (rows, T, T), True where a token
    (dimension 1) sees another (dimension 2): what comes before it in its segment and the prompt, and itself.

    Padding sees itself alone, since a softmax over nothing is NaN.
    """
    place = torch.arange(segments.shape[1], device=segments.device)
    rows = torch.arange(len(segments), device=segments.device)
    return _sees(segments, rows[:, None, None], place[None, :, None], place[None, None, :])


def _sees(segments: Tensor, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
    own, other = segments[row, query], segments[row, key]
    return ((key <= query) & (own >= 0) & ((own == other) | (other == 0))) | (query == key)


def _mask(segments: Tensor, implementation: str, dtype: torch.dtype) -> Tensor | BlockMask:
    if implementation == "flex_attention":
        rows, width = segments.shape
        return create_block_mask(
            lambda row, head, query, key: _sees(segments, row, query, key), rows, None, width, width, segments.device
        )
    seen = sees(segments)[:, None]  # for every head
    if implementation == "sdpa":
        return seen
    added = torch.zeros(seen.shape, dtype=dtype, device=seen.device)  # eager adds what it gets
    return added.masked_fill_(~seen, torch.finfo(dtype).min)


def _ends(lengths: tuple[int, ...], device: torch.device) -> dict[str, Any]:
    """Where the sequences of a packed row end, by FlashAttention's names. Without it transformers reads the ends off
    the position ids in every layer, each time waiting for the device."""
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device, non_blocking=True)
    longest = max(lengths)
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}
