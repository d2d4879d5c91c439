"""What a model's attention is told of a micro-batch: which token sees which, in the form that its kernel takes."""

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from lightning_bnf.batch import IN_COMMON, MicroBatch, Sequences
from lightning_bnf.policies.sequence_attention import Kernel, Told, install, kernel_for

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Windows = Mapping[str, int | None]
"""Kind of layer, by transformers' name -> how many tokens a token sees there, itself included; None for all."""


KINDS = {"full_attention", "sliding_attention", "linear_attention"}
"""Of layers: those that see all that comes before, or the last of it, and those that are no attention over tokens.
Others have masks of their own, such as chunks."""


def is_flash(implementation: str) -> bool:
    """Whether transformers' name of an attention is one of FlashAttention's kernels, its own or one of the hub's."""
    return "flash" in implementation


def windows_of(config: "PretrainedConfig") -> Windows:
    """The sliding windows of a text model's layers, read off its config; empty where no layer has one."""
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if not isinstance(window, int) or (kinds is not None and "sliding_attention" not in kinds):
        return {}
    named = {kind: window if kind == "sliding_attention" else None for kind in kinds or ["sliding_attention"]}
    return dict(sorted(named.items()))


def model_inputs(
    batch: MicroBatch,
    implementation: str,
    dtype: torch.dtype,
    windows: Windows,
    device: str | None = None,
    kernel: Kernel | None = None,
) -> dict[str, Any]:
    """The micro-batch as arguments of a transformers model.

    implementation: transformers' name of the attention, such as sdpa; dtype: of masks that are added to scores;
    windows: of the model's layers, which a mask of who sees whom takes the place of; device: the type of device whose
    masks are made, that of the tensors for None; kernel: what takes sequences instead of masks, None where nothing does
    """
    inputs: dict[str, Any] = dict(batch.inputs)
    segments, documents, sequences = inputs.pop("segments", None), inputs.pop("documents", None), batch.sequences
    if sequences is not None and kernel is not None and sequences.longest_key <= reach_of(kernel, windows):
        if kernel == "flash" and segments is None:
            return inputs | _ends(sequences)
        return inputs | _told(inputs["input_ids"], implementation, Told(sequences, kernel))
    if segments is not None:
        narrow = any(window is not None and window < segments.shape[1] for window in windows.values())
        seen = _Seen(segments, documents, inputs["position_ids"])
        masks = {
            kind: _mask(seen, window, implementation, dtype, device or segments.device.type)
            for kind, window in (windows if narrow else {"": None}).items()
        }
        inputs["attention_mask"] = masks if len(masks) > 1 else next(iter(masks.values()))
    elif sequences is None and kernel is not None and "position_ids" not in inputs:
        del inputs["attention_mask"]  # padding lies behind all other tokens: kernels that are not told skip more
        ids = inputs["input_ids"]
        if isinstance(ids, FakeTensor) and ids.shape[1] <= reach_of("merged", windows):
            return inputs | _told(ids, implementation, Told(None, kernel))  # transformers makes a mask of a fake
    return inputs


def _told(ids: Tensor, implementation: str, told: Told) -> dict[str, Any]:
    """What tells a model's layers of sequences, with a mask of who sees nobody, so that the model makes none itself."""
    install(implementation)
    rows, width = ids.shape
    return {"attention_mask": torch.empty(rows, 1, width, 0, dtype=torch.bool, device=ids.device), "sequences": told}


def kernel_of(
    model: "PreTrainedModel", dtype: torch.dtype, device: str | None = None, attention: str | None = None
) -> Kernel | None:
    """What computes attention within sequences in a loaded model; None where masks are needed.

    dtype: of its activations; device: a type of device instead of the model's; attention: transformers' name of another
    attention than it has
    """
    config = model.config.get_text_config()
    kinds = {kind for kind in getattr(config, "layer_types", None) or () if kind.endswith("attention")}
    if kinds - KINDS or not model._supports_attention_backend:  # whose layers are not told what the model is
        return None
    try:
        heads = getattr(config, "num_attention_heads", None) or 1
        width = getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // heads
        latent = getattr(config, "qk_nope_head_dim", None) is not None
    except Exception:  # transformers' own kind of error for heads that are not alike in all layers (Gemma-4)
        return None
    if latent:  # keys and values are of different widths
        return None
    return kernel_for(attention or str(model.config._attn_implementation), width, device or model.device.type, dtype)


def reach_of(kernel: Kernel | None, windows: Windows) -> float:
    """Tokens of the longest sequence that needs no mask: torch's kernels for CPUs know no windows."""
    if kernel != "merged":
        return 0 if kernel is None else inf
    return min((window for window in windows.values() if window is not None), default=inf)


class _Seen(NamedTuple):
    """(rows, T) each: the segments, the documents where a model row holds several, and the positions."""

    segments: Tensor
    documents: Tensor | None
    positions: Tensor | None

    def pair(self, row: Tensor, query: Tensor, key: Tensor, window: int | None) -> Tensor:
        """Whether tokens of a row see others, of these by their positions the last `window`."""
        own, other = self.segments[row, query], self.segments[row, key]
        seen = (key <= query) & (own >= 0) & ((own == other) | (other == 0))
        if self.documents is not None:
            other = self.documents[row, key]
            seen = seen & ((self.documents[row, query] == other) | (other == IN_COMMON))
        seen = seen | (query == key)
        if window is None or self.positions is None:
            return seen
        return seen & (self.positions[row, key] > self.positions[row, query] - window)


def sees(
    segments: Tensor, positions: Tensor | None = None, window: int | None = None, documents: Tensor | None = None
) -> Tensor:
    """(rows, T) segments, 0 the prompt, k its k-th completion, -1 padding -> (rows, T, T), True where a token
    (dimension 1) sees another (dimension 2): what comes before it in its segment and the prompt, and itself, of these
    by their positions (rows, T) the last `window`; and nothing of another document (rows, T) but what documents have in
    common, which is of the document `IN_COMMON`.

    Padding sees itself alone, since a softmax over nothing is NaN.
    """
    place = torch.arange(segments.shape[1], device=segments.device)
    rows = torch.arange(len(segments), device=segments.device)[:, None, None]
    return _Seen(segments, documents, positions).pair(rows, place[None, :, None], place[None, None, :], window)


def _mask(there: _Seen, window: int | None, implementation: str, dtype: torch.dtype, device: str) -> Tensor | BlockMask:
    segments = there.segments
    if implementation == "flex_attention":
        rows, width = segments.shape

        def seen_there(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return there.pair(row, query, key, window)

        return create_block_mask(seen_there, rows, None, width, width, segments.device)
    seen = sees(segments, there.positions, window, there.documents)[:, None]  # for every head
    if implementation != "sdpa":  # eager adds what it gets
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
    if device == "cpu":
        return seen
    own = seen.device.type
    return added_once(seen, torch.get_autocast_dtype(own) if torch.is_autocast_enabled(own) else dtype)


def added_once(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """(..., T, T) -> what is added to scores: 0 where a token sees another, else -infinity. On a GPU every layer would
    make it of a boolean mask for itself, and keep it for its backward pass; what is rows of whole multiples of 16
    numbers in memory, its kernels take as it is."""
    width = seen.shape[-1]
    added = torch.zeros((*seen.shape[:-1], -(-width // 16) * 16), dtype=dtype, device=seen.device)[..., :width]
    return added.masked_fill_(~seen, -torch.inf)


def _ends(sequences: Sequences) -> dict[str, Any]:
    """Where the sequences of a packed row end, by FlashAttention's names, for all layers that ask. Without it
    transformers reads the ends off the position ids in every layer, each time waiting for the device."""
    ends, longest = sequences.query_ends, sequences.longest_query
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}
