"""Attention within sequences, which computes no score that a mask would forbid.

transformers hands down to its attention functions what a model is called with beside its own arguments: there
`SequenceAttention` takes a micro-batch's `Sequences`. On GPUs FlashAttention's kernels for sequences of any length take
a further completion with its prompt's keys once more, in one pass that knows windows and soft-caps. A CPU has no such
kernel: there a completion over itself and over its prompt are two passes, merged by their log-sum-exp.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_bnf.batch import Document, Sequences

Kernel = Literal["flash", "varlen", "merged"]
"""Which attention takes sequences: transformers' FlashAttention, torch's own, or two merged passes of torch's for CPUs.
"""

HALVES = (torch.bfloat16, torch.float16)
WIDEST_HEAD = 256
"""Numbers of a head that FlashAttention's kernels take at most."""

NARROWEST_IN_HALF = 512
"""Keys up to which a CPU computes a pass of 16 bits in float32: forward so that passes are not rounded before they are
merged, at no cost; backward torch's own builds its products anew for each new length, and takes longer (30 ms against
0.2 at 16 keys, 5 against 1.4 at 128; as long from 512 on)."""

Attention = Callable[..., tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Told:
    """What a model's layers are told beside an empty mask, which no other attention can take by mistake. No tuple: a
    compiler would look at its numbers, which differ in every micro-batch.

    sequences: None where each row is one, so that the plain attention needs no mask
    """

    sequences: Sequences | None
    kernel: Kernel


class SequenceAttention:
    """An attention function of transformers that takes `sequences` too; without them it is the plain one."""

    def __init__(self, plain: Attention):
        self.plain = plain

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        sequences: Told | None = None,
        **named: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """query (B, heads, T, D), key and value (B, heads or fewer, T, D) -> (B, T, heads, D)."""
        if sequences is None or (attention_mask is not None and attention_mask.numel()):
            return self.plain(module, query, key, value, attention_mask, **named)
        return _attend(self.plain, module, query, key, value, sequences, named)


def _within(
    plain: Attention, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, told: Told, named: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    sequences, kernel = told.sequences, told.kernel
    if sequences is None:
        return plain(module, query, key, value, None, **named)
    if kernel == "flash":
        return _flash(plain, module, query, key, value, sequences, named), None
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if named.get(name) is not None]
    if unknown or named.get("dropout"):
        raise NotImplementedError(f"attention within sequences knows no {', '.join(unknown) or 'dropout'}")
    device = query.device.type
    if torch.is_autocast_enabled(device):
        query, key, value = (one.to(torch.get_autocast_dtype(device)) for one in (query, key, value))
    width, narrower = query.shape[-1], value.shape[-1]
    if narrower < width:
        value = nn.functional.pad(value, (0, width - narrower))
    scale = named.get("scaling")
    if kernel == "varlen":
        found = _varlen(query, key, value, sequences, scale, named.get("sliding_window"))
    else:
        found = merged_attention(query, key, value, sequences.documents, scale)
    return found[..., :narrower], None


_attend: Attention = _within


def keep_from_compilers() -> None:
    """Run attention within sequences between what torch compiles of a layer: it looks at lengths, which are Python's
    numbers and others in every micro-batch."""
    global _attend
    _attend = torch.compiler.disable(_within)  # takes seconds to import


def install(implementation: str) -> None:
    """Have transformers' attention of that name take sequences: other calls, of any model, are as they were."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface  # seconds, not for --help

    known = ALL_ATTENTION_FUNCTIONS[implementation]
    if not isinstance(known, SequenceAttention):
        AttentionInterface.register(implementation, SequenceAttention(known))


def kernel_for(implementation: str, head_width: int, device: str, dtype: torch.dtype) -> Kernel | None:
    """Which kernel takes sequences under transformers' name of an attention; None where masks must be made.

    device: the type of device, which need not be there; dtype: that attention is computed in
    """
    if "flash" in implementation:
        return "flash"
    if implementation != "sdpa":
        return None
    if device == "cpu":
        return "merged"
    there = torch.cuda.is_available() and device == "cuda"
    new_enough = not there or torch.version.hip is not None or torch.cuda.get_device_capability() >= (8, 0)
    fits = device == "cuda" and dtype in HALVES and head_width <= WIDEST_HEAD and new_enough
    return "varlen" if fits and varlen_attn() is not None else None


@cache
def varlen_attn() -> Callable[..., Any] | None:
    """torch's FlashAttention for sequences of any length, where it has one for keys of fewer heads."""
    try:
        from torch.nn.attention import varlen
    except ImportError:
        return None
    return varlen.varlen_attn if "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters else None


def _flash(
    plain: Attention,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sequences: Sequences,
    named: dict[str, Any],
) -> Tensor:
    """By transformers' own function for one row of sequences, which looks after windows, caps, sinks and types."""
    rows, _, width, _ = query.shape
    ends = {
        "cu_seq_lens_q": sequences.query_ends,
        "cu_seq_lens_k": sequences.key_ends,
        "max_length_q": sequences.longest_query,
        "max_length_k": sequences.longest_key,
    }
    one_row = (one.transpose(0, 1)[None] for one in (_flat(query), _keys(key, sequences), _keys(value, sequences)))
    found, _ = plain(module, *one_row, None, **(named | ends))
    return found.unflatten(1, (rows, width)).squeeze(0)


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, scale: float | None, window: int | None
) -> Tensor:
    attend = varlen_attn()
    assert attend is not None
    rows, _, width, _ = query.shape
    found: Tensor = attend(
        _flat(query),
        _keys(key, sequences),
        _keys(value, sequences),
        sequences.query_ends,
        sequences.key_ends,
        sequences.longest_query,
        sequences.longest_key,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),  # the last query sees all keys
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return found.unflatten(0, (rows, width))


def _flat(tensor: Tensor) -> Tensor:
    """(B, heads, T, D) -> (B * T, heads, D), a look at the same numbers where they lie so."""
    return tensor.transpose(1, 2).flatten(0, 1)


def _keys(tensor: Tensor, sequences: Sequences) -> Tensor:
    """(B, heads, T, D) -> (K, heads, D): a prompt's once more before each completion but its first."""
    tokens = _flat(tensor)
    if sequences.keys is None or sequences.copies is None:
        return tokens
    repeated: Tensor = _Repeated.apply(tokens, sequences.keys, sequences.copies, sequences.common)
    return repeated


class _Repeated(torch.autograd.Function):
    """index_select whose gradient is summed in one order: torch's own adds as its threads come."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, keys: Tensor, copies: Tensor, common: Tensor | None) -> Tensor:
        ctx.save_for_backward(copies, common)
        return tokens.index_select(0, keys)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        copies, common = ctx.saved_tensors
        gradient = torch.cat([gradient, gradient.new_zeros(1, *gradient.shape[1:])])
        tokens = gradient.index_select(0, copies.flatten()).unflatten(0, copies.shape).sum(0)
        if common is not None:
            tokens[: common.shape[1]] += gradient.index_select(0, common.flatten()).unflatten(0, common.shape).sum(0)
        return tokens, None, None, None


class Pass(NamedTuple):
    """Queries of a model row over keys of it: each over all of them, or over those up to itself where causal."""

    row: int
    queries: slice
    keys: slice
    causal: bool


def passes(documents: Sequence[Document]) -> Iterator[Pass]:
    """What is computed of documents: the prompt with its first completion, each further one over itself, all of these
    over the prompt, and all documents over what they have in common, which lies in one row."""
    for row, start, prompt, completions, _ in documents:
        first = start + prompt + sum(completions[:1])
        if first > start:
            yield Pass(row, slice(start, first), slice(start, first), True)
        at = first
        for length in completions[1:]:
            if length:
                yield Pass(row, slice(at, at + length), slice(at, at + length), True)
            at += length
        if prompt and at > first:
            yield Pass(row, slice(first, at), slice(start, start + prompt), False)
    if sharing := [document for document in documents if document.common]:
        first_of_all, common = sharing[0], slice(0, sharing[0].common)
        yield Pass(first_of_all.row, slice(first_of_all.start, sharing[-1].stop), common, False)


def scores(documents: Sequence[Document], causal: bool = True) -> int:
    """Pairs of a query and a key that are computed for a head; without `causal`, also those that a causal kernel skips,
    as torch counts them. Each pair takes 4 D operations: D products and sums for its score, and D for its value."""
    total = 0
    for _, queries, keys, half in passes(documents):
        count, wide = queries.stop - queries.start, keys.stop - keys.start
        total += count * (count + 1) // 2 if half and causal else count * wide
    return total


def merged_attention(
    query: Tensor, key: Tensor, value: Tensor, documents: Sequence[Document], scale: float | None = None
) -> Tensor:
    """query (B, heads, T, D), key and value (B, heads or fewer, T, D) of a CPU -> (B, T, heads, D); 0 for padding."""
    found: Tensor = _Merged.apply(query, key, value, tuple(documents), scale)
    return found.transpose(1, 2)


class _Merged(torch.autograd.Function):
    """Exact: softmax over both passes' keys is each pass's, weighted by its share of the sum of exponentials. Backward,
    each pass is told the merged output and log-sum-exp, and so gives its part of the whole's gradient."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, documents: tuple[Document, ...], scale: float | None
    ) -> Tensor:
        rows, heads, width, size = query.shape
        wide = torch.promote_types(query.dtype, torch.float32)
        out = query.new_zeros(rows, width, heads, size, dtype=wide).transpose(1, 2)  # as projections take it
        total = query.new_zeros(rows, width, heads, dtype=wide).transpose(1, 2)
        for row, queries, keys, causal in passes(documents):
            exact = _computed_in(query.dtype, keys)
            q, k, v = query[row, :, queries], key[row, :, keys], value[row, :, keys]
            part, part_total = _FORWARD(*(one[None].to(exact) for one in (q, k, v)), 0.0, causal, scale=scale)
            there, there_total = out[row, :, queries], total[row, :, queries]
            if causal:
                there.copy_(part[0])
                there_total.copy_(part_total[0])
                continue
            both = torch.logaddexp(there_total, part_total[0])
            shares = (one.sub(both).exp_()[..., None] for one in (there_total, part_total[0]))
            there.copy_(there * next(shares) + part[0] * next(shares))
            there_total.copy_(both)
        out = out.to(query.dtype)  # rounded once, as a single pass would
        ctx.save_for_backward(query, key, value, out, total)
        ctx.documents, ctx.scale = documents, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, total = ctx.saved_tensors
        wide = torch.promote_types(query.dtype, torch.float32)  # a prompt's gradients are sums
        sums = [torch.zeros_like(one, dtype=wide) for one in (query, key, value)]
        for row, queries, keys, causal in passes(ctx.documents):
            q, k, v = query[row, :, queries], key[row, :, keys], value[row, :, keys]
            given, found, found_total = gradient[row, :, queries], out[row, :, queries], total[row, :, queries]
            exact = _computed_in(query.dtype, keys)
            whole = (one[None].to(exact) for one in (given, q, k, v, found))
            parts = _BACKWARD(*whole, found_total[None], 0.0, causal, scale=ctx.scale)
            for one, part, place in zip(sums, parts, (queries, keys, keys)):
                one[row, :, place] += part[0]
        of_query, of_key, of_value = (one.to(query.dtype) for one in sums)
        return of_query, of_key, of_value, None, None


def _computed_in(dtype: torch.dtype, keys: slice) -> torch.dtype:
    """The type in which a pass over these keys is computed: over few so that nothing is rounded before it is merged."""
    few = keys.stop - keys.start <= NARROWEST_IN_HALF
    return torch.promote_types(dtype, torch.float32) if few else dtype


_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
