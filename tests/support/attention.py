"""Attention as anybody would write it, and what stands for kernels that need a GPU."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


def dense(
    query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scale: float | None = None, softcap: float | None = None
) -> Tensor:
    """(B, heads, T, D), fewer heads of keys and values, and (B, T, keys) who sees whom -> (B, heads, T, D)."""
    groups = query.shape[1] // key.shape[1]
    key, value = (one.repeat_interleave(groups, 1) for one in (key, value))
    products = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    products = products if softcap is None else softcap * (products / softcap).tanh()
    return products.masked_fill(~seen[:, None], -torch.inf).softmax(-1) @ value


def varlen_by_hand(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    longest_query: int,
    longest_key: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    softcap: float | None = None,
) -> Tensor:
    """What torch's kernel does, (tokens, heads, D) -> the same: the last query of a sequence is beside its last key."""
    assert query_ends.dtype == key_ends.dtype == torch.int32
    assert enable_gqa == (query.shape[1] != key.shape[1])
    found, most = [], [0, 0]
    for own, other in zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True):
        q, k, v = (
            one[slice(*place)].transpose(0, 1)[None] for one, place in ((query, own), (key, other), (value, other))
        )
        most = [max(most[0], q.shape[2]), max(most[1], k.shape[2])]
        apart = torch.arange(q.shape[2])[:, None] + k.shape[2] - q.shape[2] - torch.arange(k.shape[2])
        seen = (apart >= -window_size[1]) & ((apart <= window_size[0]) | (window_size[0] < 0))
        found.append(dense(q, k, v, seen[None], scale, softcap)[0].transpose(0, 1))
    assert most == [longest_query, longest_key]
    return torch.cat(found)


def flash_by_hand(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **named: Any,
) -> tuple[Tensor, None]:
    """What transformers' FlashAttention does with sequences in a row: (1, heads, T, D) -> (1, T, heads, D)."""
    assert attention_mask is None
    ends = (named[name] for name in ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"))
    window = (-1 if sliding_window is None else sliding_window - 1, 0)
    found = varlen_by_hand(
        *(one[0].transpose(0, 1) for one in (query, key, value)),
        *ends,
        scale=scaling,
        window_size=window,
        enable_gqa=query.shape[1] != key.shape[1],
        softcap=softcap,
    )
    return found[None], None
