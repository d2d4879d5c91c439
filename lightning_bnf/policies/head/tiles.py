"""From hidden states to token log-probabilities, tiled over tokens: no tokens x vocabulary tensor ever exists.

Two ways through the same tile:

    token_logps           differentiable log-probs; the backward pass makes each tile again (four matrix products)
    weighted_token_logps  for token losses: a token's weight is known once its own log-prob is, so the gradient is made
                          while the tile is still there (three products, two where the head is frozen)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable

from lightning_bnf.losses.base import Weigher
from lightning_bnf.policies.head.choose import tile_softmax
from lightning_bnf.policies.head.softmax import Logits, empty_rows

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TILE_BYTES = 2**27
"""Of one tile of float32 logits on a CPU, where larger ones are hardly faster."""

GPU_TILE_BYTES = {"trained": 2**30, "frozen": 2**29}
"""On GPUs, by whether the head's weight is trained. Its gradient is read and written once a tile: with so many tokens a
tile the products take longer than that (planned by a roofline, not measured)."""

SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""What configs call the bound of logits."""


@dataclass(frozen=True)
class Head:
    """What a model does to its last hidden states: cap * tanh(scale * (hidden @ weight.T + bias) / cap).

    weight: (V, H); bias: (V,) or None; scale: the factor of Cohere and Granite; softcap: Gemma-2's bound, or None;
    device: the type of device whose kind of products is planned for; None is that of the tensors
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    device: str | None = None

    @classmethod
    def of(cls, layer: nn.Linear, config: "PretrainedConfig", device: str | None = None) -> "Head":
        """The head with a model's output layer, and what its text config says of logits."""
        scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
        caps = (getattr(config, name, None) for name in SOFT_CAPS)
        return cls(layer.weight, layer.bias, float(scale), next((cap for cap in caps if cap), None), device)

    def to(self, dtype: torch.dtype) -> "Head":
        """The same head with weight and bias in `dtype`."""
        return replace(self, weight=self.weight.to(dtype), bias=None if self.bias is None else self.bias.to(dtype))


def rounded_again(values: Tensor, draw: torch.Generator) -> Tensor:
    """The values, each off by up to half a unit in its last place: what rounding once more does."""
    unit = torch.finfo(values.dtype).eps
    if values.dtype == torch.float32 and values.is_cuda and torch.backends.cuda.matmul.allow_tf32:
        unit = 2**-10  # of the products that float32 is made of
    shifts = torch.rand(values.shape, generator=draw, device=values.device) - 0.5
    return (values * (1 + shifts * unit)).to(values.dtype)


def noise_of_rounding(logits: Tensor, targets: Tensor, at_least: int) -> float:
    """The most nats by which log-probs of targets move where the logits are rounded once more; of `at_least` so many
    numbers, because the most of a few is of any size by chance. logits: (N, V); targets: (N,)."""
    times = math.ceil(at_least / len(targets))
    again = rounded_again(logits.repeat(times, 1), torch.Generator(logits.device).manual_seed(1))
    own, moved = (of.float().log_softmax(-1) for of in (logits, again))
    chosen = targets.repeat(times)[:, None]
    return (moved.gather(-1, chosen) - own.repeat(times, 1).gather(-1, chosen)).abs().max().item()


class TokenLogps(NamedTuple):
    """logps (N,) of the target tokens; entropy (N,) of the distributions they were scored by, detached, if asked for.
    Both in nats."""

    logps: Tensor
    entropy: Tensor | None


class WeightedLogps(NamedTuple):
    """The objective -sum_t sg[weight_t] log pi(target_t), a scalar, and the detached log-probs and entropies (N,)."""

    objective: Tensor
    logps: Tensor
    entropy: Tensor | None


def token_logps(
    hidden: Tensor, target: Tensor, head: Head, entropy: bool = False, tile_bytes: int | None = None
) -> TokenLogps:
    """Log-probability of each target token, differentiable in hidden states, weight and bias.

    hidden (N, H); target (N,) token ids; `tile_bytes`: of logits at once, by default as the device likes it. Returns
    (N,) nats in float32 (float64 where `hidden` is).
    """
    asked = _Asked(entropy, tile_bytes or _tile_bytes(hidden, head), _product_dtype(hidden, head))
    with torch.autocast(hidden.device.type, enabled=False):
        return TokenLogps(*_TokenLogps.apply(hidden, head.weight, head.bias, target, head, asked))


def weighted_token_logps(
    hidden: Tensor, target: Tensor, head: Head, weigh: Weigher, entropy: bool = False, tile_bytes: int | None = None
) -> WeightedLogps:
    """The objective -sum_t sg[weight_t] log pi(target_t), and the log-probs that it was made of.

    hidden (N, H); target (N,); `weigh` gives the weights of a tile's tokens. Returns the objective, differentiable in
    hidden states, weight and bias, and the token log-probs (N,), detached.
    """
    inputs = (hidden, head.weight, head.bias)
    wanted = _Wanted(*(torch.is_grad_enabled() and x is not None and x.requires_grad for x in inputs))
    asked = _Asked(entropy, tile_bytes or _tile_bytes(hidden, head), _product_dtype(hidden, head))
    with torch.autocast(hidden.device.type, enabled=False):
        return WeightedLogps(
            *_WeightedTokenLogps.apply(hidden, head.weight, head.bias, target, head, weigh, wanted, asked)
        )


@torch.no_grad()
def target_logits(hidden: Tensor, target: Tensor, head: Head, tile_bytes: int = TILE_BYTES) -> Tensor:
    """Each target token's own logit as the softmax gets it, scaled and capped: (N,), float32 or wider, detached.

    hidden (N, H); target (N,). One product of two vectors a token: the logits of other tokens are not needed.
    """
    wide = _wide(hidden.dtype)
    logits = hidden.new_empty(len(target), dtype=wide)
    rows = max(1, tile_bytes // (head.weight.shape[1] * wide.itemsize))
    with torch.autocast(hidden.device.type, enabled=False):
        for at in (slice(start, start + rows) for start in range(0, len(target), rows)):
            z = (hidden[at].to(wide) * head.weight[target[at]].to(wide)).sum(-1)
            if head.bias is not None:
                z += head.bias[target[at]].to(wide)
            z *= head.scale
            logits[at] = z if head.softcap is None else head.softcap * torch.tanh(z / head.softcap)
    return logits


class _Asked(NamedTuple):
    """Whether entropies are wanted, how large a tile may be, and in what the matrix products are made."""

    entropy: bool
    tile_bytes: int
    products: torch.dtype


class _Wanted(NamedTuple):
    """Which gradients are asked for."""

    hidden: bool
    weight: bool
    bias: bool


class _Tile:
    """Some tokens and their logits, which `tile_softmax` turns into exponentials e^(z - max z)."""

    def __init__(self, head: Head, hidden: Tensor, target: Tensor, where: slice, buffer: Tensor):
        self.head, self.where = head, where
        self.hidden, self.target = hidden[where].to(head.weight.dtype), target[where]
        self.scores = _mm(self.hidden, head.weight.T, buffer[: len(self.target)])  # (n, V)
        self.total = buffer.new_empty(len(self.target))  # sum of the exponentials, (n,)
        self.derivative: Tensor | None = None  # of the soft-cap at the target, (n,)

    def softmax(self, gradient: bool, entropy: Tensor | None) -> Tensor:
        """The targets' log-probs, (n,). Where a gradient is to follow, a soft-cap's derivative is multiplied in.

        `entropy` (n,), if given, is filled with the rows' entropies.
        """
        head = self.head
        logits = Logits(self.scores, self.target, head.bias, head.scale, head.softcap)
        logps, self.total, self.derivative, self.scores = tile_softmax(logits, gradient, entropy, head.weight.dtype)
        return logps


class _Gradients:
    """Gradients of hidden states, weight and bias, added up tile by tile in the tiles' precision."""

    def __init__(self, hidden: Tensor, head: Head, wanted: _Wanted):
        wide = _wide(hidden.dtype)
        self.hidden = torch.empty_like(hidden) if wanted.hidden else None
        # the first tile writes the weight's, which is large; without tokens nothing does
        make = torch.empty_like if len(hidden) else torch.zeros_like
        self.weight = make(head.weight, dtype=wide) if wanted.weight else None
        self.bias = torch.zeros_like(head.bias, dtype=wide) if head.bias is not None and wanted.bias else None

    @property
    def wanted(self) -> bool:
        """Whether any is."""
        return any(grad is not None for grad in (self.hidden, self.weight, self.bias))

    def add(self, tile: _Tile, out: Tensor) -> None:
        """Pull `out` (n,), the gradient with respect to a softened tile's log-probs, back to what made it."""
        head = tile.head
        out = out * head.scale
        rows = (-out / tile.total)[:, None]  # d log pi(y) / dz_k = [k = y] - e_k / total
        at_target = out if tile.derivative is None else out * tile.derivative
        scores = tile.scores.to(head.weight.dtype)
        if self.hidden is not None:
            grad = _mm(scores, head.weight, tile.total.new_empty(tile.hidden.shape)).mul_(rows)
            grad.addcmul_(head.weight[tile.target].to(grad.dtype), at_target[:, None])
            self.hidden[tile.where] = grad.to(self.hidden.dtype)
        if self.weight is not None:
            _addmm(self.weight, scores.T, (tile.hidden * rows).to(scores.dtype), first=tile.where.start == 0)
            self.weight.index_add_(0, tile.target, tile.hidden * at_target[:, None])
        if self.bias is not None:
            self.bias.addmv_(tile.scores.to(self.bias.dtype).T, rows.squeeze(-1)).index_add_(0, tile.target, at_target)


def _tiles(hidden: Tensor, target: Tensor, head: Head, tile_bytes: int) -> Iterator[_Tile]:
    """The tokens, a tile after the other in one buffer; `head` is in the products' precision already."""
    if not len(target):
        return
    vocabulary, dtype = len(head.weight), _wide(hidden.dtype)
    most = max(1, tile_bytes // (vocabulary * dtype.itemsize))
    rows = -(-len(target) // -(-len(target) // most))  # tiles of like size
    buffer = empty_rows(hidden, (rows, vocabulary), dtype, (head.device or hidden.device.type) == "cuda")
    for start in range(0, len(target), rows):
        yield _Tile(head, hidden, target, slice(start, start + rows), buffer)


def _tile_bytes(hidden: Tensor, head: Head) -> int:
    if (head.device or hidden.device.type) != "cuda":
        return TILE_BYTES
    return GPU_TILE_BYTES["trained" if torch.is_grad_enabled() and head.weight.requires_grad else "frozen"]


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What logits are computed in: bf16 log-softmax was measured to put errors of 0.13 into BNF's weight."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _product_dtype(hidden: Tensor, head: Head) -> torch.dtype:
    """What the products' factors are in; their sums are float32 or wider. Halves on CUDA only, where they are fast: of
    weights that are halves, or under autocast. Logits themselves never are."""
    if (head.device or hidden.device.type) == "cuda":
        if head.weight.dtype in (torch.bfloat16, torch.float16):
            return head.weight.dtype
        if torch.is_autocast_enabled(hidden.device.type):
            return torch.get_autocast_dtype(hidden.device.type)
    return _wide(hidden.dtype)


def _mm(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """a @ b, summed in `out`'s precision, which may be wider than the factors'."""
    if a.dtype == out.dtype:
        return torch.mm(a, b, out=out)
    if _sums_wider(a):
        return torch.mm(a, b, out_dtype=out.dtype, out=out)
    return torch.mm(a.to(out.dtype), b.to(out.dtype), out=out)  # no such product on a CPU: for tests


def _sums_wider(a: Tensor) -> bool:
    """Whether there is a product of halves whose sums are wider: on CUDA, and where a GPU is planned for."""
    return a.device.type == "cuda" or isinstance(a, FakeTensor)


def _addmm(total: Tensor, a: Tensor, b: Tensor, first: bool) -> None:
    """total += a @ b, summed in `total`'s precision; the `first` time whatever `total` held is written over."""
    beta = 0 if first else 1
    if a.dtype == total.dtype:
        total.addmm_(a, b, beta=beta)
    elif _sums_wider(a):
        torch.addmm(total, a, b, beta=beta, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype), beta=beta)


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, head: Head, asked: _Asked
    ) -> tuple[Tensor, Tensor | None]:
        logps = hidden.new_empty(len(target), dtype=_wide(hidden.dtype))
        entropy = torch.empty_like(logps) if asked.entropy else None
        for tile in _tiles(hidden, target, head.to(asked.products), asked.tile_bytes):
            logps[tile.where] = tile.softmax(False, None if entropy is None else entropy[tile.where])
        ctx.save_for_backward(hidden, weight, bias, target)
        ctx.head, ctx.asked = (head.scale, head.softcap, head.device), asked
        if entropy is not None:
            ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out: Tensor, _: Tensor | None) -> tuple:
        hidden, weight, bias, target = ctx.saved_tensors
        head = Head(weight, bias, *ctx.head).to(ctx.asked.products)
        with torch.autocast(hidden.device.type, enabled=False):
            grads = _Gradients(hidden, head, _Wanted(*ctx.needs_input_grad[:3]))
            for tile in _tiles(hidden, target, head, ctx.asked.tile_bytes):
                tile.softmax(True, None)
                grads.add(tile, out[tile.where])
        return (*_as_given(grads, weight, bias), None, None, None)


class _WeightedTokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        head: Head,
        weigh: Weigher,
        wanted: _Wanted,
        asked: _Asked,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        head = head.to(asked.products)
        grads = _Gradients(hidden, head, wanted)
        logps = hidden.new_empty(len(target), dtype=_wide(hidden.dtype))
        entropy = torch.empty_like(logps) if asked.entropy else None
        objective = logps.new_zeros(())
        for tile in _tiles(hidden, target, head, asked.tile_bytes):
            found = tile.softmax(grads.wanted, None if entropy is None else entropy[tile.where])
            weights = weigh(found, tile.where)
            logps[tile.where] = found
            objective -= weights @ found
            if grads.wanted:
                grads.add(tile, -weights)
        ctx.grads = _as_given(grads, weight, bias)
        ctx.mark_non_differentiable(*(x for x in (logps, entropy) if x is not None))
        return objective, logps, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out: Tensor, *_: Tensor | None) -> tuple:
        if ctx.grads is None:
            raise RuntimeError("the head makes a token loss's gradient in its forward pass: one backward pass only")
        grads, ctx.grads = ctx.grads, None  # scaled in place, so good for one use
        return (*(None if grad is None else grad.mul_(out.to(grad.dtype)) for grad in grads), *[None] * 5)


def _as_given(grads: _Gradients, weight: Tensor, bias: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients in the dtypes of what they belong to."""
    return (
        grads.hidden,
        None if grads.weight is None else grads.weight.to(weight.dtype),
        None if grads.bias is None or bias is None else grads.bias.to(bias.dtype),
    )
