"""What a model's attention is told of a micro-batch: which token sees which, in the form that its kernel takes."""

from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from lightning_bnf.batch import MicroBatch

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Windows = Mapping[str, int | None]
"""Kind of layer, by transformers' name -> how many tokens a token sees there, itself included; None for all."""


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
    batch: MicroBatch, implementation: str, dtype: torch.dtype, windows: Windows, device: str | None = None
) -> dict[str, Any]:
    """The micro-batch as arguments of a transformers model.

    implementation: transformers' name of the attention, such as sdpa; dtype: of masks that are added to scores;
    windows: of the model's layers, which a mask of who sees whom takes the place of; device: the type of device whose
    masks are made, that of the tensors for None
    """
    inputs: dict[str, Any] = dict(batch.inputs)
    segments = inputs.pop("segments", None)
    if segments is not None:
        narrow = [window for window in windows.values() if window is not None and window < segments.shape[1]]
        masks = {
            kind: _mask(segments, inputs["position_ids"], window, implementation, dtype, device or segments.device.type)
            for kind, window in (windows if narrow else {"": None}).items()
        }
        inputs["attention_mask"] = masks if len(masks) > 1 else next(iter(masks.values()))
    elif batch.sequence_lengths and is_flash(implementation):
        inputs |= _ends(batch.sequence_lengths, inputs["input_ids"].device)
    return inputs


def sees(segments: Tensor, positions: Tensor | None = None, window: int | None = None) -> Tensor:
    """(rows, T) segments, 0 the prompt, k its k-th completion, -1 padding -> (rows, T, T), True where a token
    (dimension 1) sees another (dimension 2): what comes before it in its segment and the prompt, and itself, of these
    by their positions (rows, T) the last `window`.

    Padding sees itself alone, since a softmax over nothing is NaN.
    """
    place = torch.arange(segments.shape[1], device=segments.device)
    rows = torch.arange(len(segments), device=segments.device)[:, None, None]
    query, key = place[None, :, None], place[None, None, :]
    seen = _sees(segments, rows, query, key)
    return seen if window is None or positions is None else seen & _near(positions, window, rows, query, key)


def _sees(segments: Tensor, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
    own, other = segments[row, query], segments[row, key]
    return ((key <= query) & (own >= 0) & ((own == other) | (other == 0))) | (query == key)


def _near(positions: Tensor, window: int, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return positions[row, key] > positions[row, query] - window


def _mask(
    segments: Tensor, positions: Tensor, window: int | None, implementation: str, dtype: torch.dtype, device: str
) -> Tensor | BlockMask:
    if implementation == "flex_attention":
        rows, width = segments.shape

        def seen_there(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            seen = _sees(segments, row, query, key)
            return seen if window is None else seen & _near(positions, window, row, query, key)

        return create_block_mask(seen_there, rows, None, width, width, segments.device)
    seen = sees(segments, positions, window)[:, None]  # for every head
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


def _ends(lengths: tuple[int, ...], device: torch.device) -> dict[str, Any]:
    """Where the sequences of a packed row end, by FlashAttention's names. Without it transformers reads the ends off
    the position ids in every layer, each time waiting for the device."""
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device, non_blocking=True)
    longest = max(lengths)
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}
