"""From hidden states to token log-probabilities, tiled over tokens: no tokens x vocabulary tensor ever exists.

Two ways through the same tile:

    token_logps           differentiable log-probs; the backward pass makes each tile again (four matrix products)
    weighted_token_logps  for token losses: a token's weight is known once its own log-prob is, so the gradient is made
                          while the tile is still there (three products, two where the head is frozen)
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_bnf.losses.base import Weigher

TILE_BYTES = 2**27  # of one tile of float32 logits; larger tiles are hardly faster


@dataclass(frozen=True)
class Head:
    """What a model does to its last hidden states: cap * tanh(scale * (hidden @ weight.T + bias) / cap).

    weight: (V, H); bias: (V,) or None; scale: the factor of Cohere and Granite; softcap: Gemma-2's bound, or None
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, H) -> (n, V); `hidden`, weight and bias of one dtype."""
        logits = hidden @ self.weight.T
        if self.bias is not None:
            logits += self.bias
        if self.scale != 1.0:
            logits *= self.scale
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def to(self, dtype: torch.dtype) -> "Head":
        """The same head with weight and bias in `dtype`."""
        return replace(self, weight=self.weight.to(dtype), bias=None if self.bias is None else self.bias.to(dtype))


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
    hidden: Tensor, target: Tensor, head: Head, entropy: bool = False, tile_bytes: int = TILE_BYTES
) -> TokenLogps:
    """Log-probability of each target token, differentiable in hidden states, weight and bias.

    hidden (N, H); target (N,) token ids. Returns (N,) nats in float32 (float64 where `hidden` is).
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return TokenLogps(*_TokenLogps.apply(hidden, head.weight, head.bias, target, head, _Asked(entropy, tile_bytes)))


def weighted_token_logps(
    hidden: Tensor, target: Tensor, head: Head, weigh: Weigher, entropy: bool = False, tile_bytes: int = TILE_BYTES
) -> WeightedLogps:
    """The objective -sum_t sg[weight_t] log pi(target_t), and the log-probs that it was made of.

    hidden (N, H); target (N,); `weigh` gives the weights of a tile's tokens. Returns the objective, differentiable in
    hidden states, weight and bias, and the token log-probs (N,), detached.
    """
    inputs = (hidden, head.weight, head.bias)
    wanted = _Wanted(*(torch.is_grad_enabled() and x is not None and x.requires_grad for x in inputs))
    with torch.autocast(hidden.device.type, enabled=False):
        asked = _Asked(entropy, tile_bytes)
        return WeightedLogps(
            *_WeightedTokenLogps.apply(hidden, head.weight, head.bias, target, head, weigh, wanted, asked)
        )


class _Asked(NamedTuple):
    """Whether entropies are wanted, and how large a tile may be."""

    entropy: bool
    tile_bytes: int


class _Wanted(NamedTuple):
    """Which gradients are asked for."""

    hidden: bool
    weight: bool
    bias: bool


class _Gradients:
    """Gradients of hidden states, weight and bias, added up tile by tile in the tiles' precision."""

    def __init__(self, hidden: Tensor, head: Head, wanted: _Wanted):
        wide = _wide(hidden.dtype)
        self.hidden = torch.empty_like(hidden) if wanted.hidden else None
        self.weight = torch.zeros_like(head.weight, dtype=wide) if wanted.weight else None
        self.bias = torch.zeros_like(head.bias, dtype=wide) if head.bias is not None and wanted.bias else None

    def add(self, head: Head, tile: "_Tile", out: Tensor) -> None:
        """Pull `out` (n,), the gradient with respect to the tile's log-probs, back. Uses the tile's logits up."""
        if all(grad is None for grad in (self.hidden, self.weight, self.bias)):
            return
        slope = None if head.softcap is None else 1 - (tile.logits / head.softcap).square_()
        grad = tile.logits.sub_(tile.lse[:, None]).exp_().mul_(-out[:, None])  # d log pi(y) / dz_k = [k = y] - pi_k
        grad[torch.arange(len(out), device=out.device), tile.target] += out
        if slope is not None:
            grad *= slope
        if head.scale != 1.0:
            grad *= head.scale
        if self.hidden is not None:
            self.hidden[tile.where] = (grad @ head.weight).to(self.hidden.dtype)
        if self.weight is not None:
            self.weight.addmm_(grad.T, tile.hidden)
        if self.bias is not None:
            self.bias += grad.sum(0)


class _Tile(NamedTuple):
    """Some tokens with their logits (n, V), in wide precision."""

    where: slice
    hidden: Tensor
    target: Tensor
    logits: Tensor
    lse: Tensor
    logps: Tensor

    def entropy(self) -> Tensor:
        """Of each token's distribution, (n,), in nats; a few rows at a time, so that no second tile is there."""
        log_p = (logits - lse[:, None] for logits, lse in zip(self.logits.split(32), self.lse.split(32)))
        return torch.cat([-(some.exp() * some).sum(-1) for some in log_p])


def _tiles(hidden: Tensor, target: Tensor, head: Head, tile_bytes: int) -> Iterator[_Tile]:
    """The tokens, a tile after the other; `head` is in wide precision already."""
    wide = head.weight.dtype
    tokens = max(1, tile_bytes // (len(head.weight) * wide.itemsize))
    for start in range(0, len(target), tokens):
        where = slice(start, start + tokens)
        tile_hidden, tile_target = hidden[where].to(wide), target[where]
        logits = head.logits(tile_hidden)
        lse = logits.logsumexp(-1)
        logps = logits.gather(-1, tile_target[:, None]).squeeze(-1) - lse
        yield _Tile(where, tile_hidden, tile_target, logits, lse, logps)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What logits are computed in: bf16 log-softmax was measured to put errors of 0.13 into BNF's weight."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, head: Head, asked: _Asked
    ) -> tuple[Tensor, Tensor | None]:
        wide = head.to(_wide(hidden.dtype))
        logps = hidden.new_empty(len(target), dtype=wide.weight.dtype)
        entropy = torch.empty_like(logps) if asked.entropy else None
        for tile in _tiles(hidden, target, wide, asked.tile_bytes):
            logps[tile.where] = tile.logps
            if entropy is not None:
                entropy[tile.where] = tile.entropy()
        ctx.save_for_backward(hidden, weight, bias, target)
        ctx.head, ctx.tile_bytes = (head.scale, head.softcap), asked.tile_bytes
        if entropy is not None:
            ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out: Tensor, _: Tensor | None) -> tuple:
        hidden, weight, bias, target = ctx.saved_tensors
        head = Head(weight, bias, *ctx.head)
        wide = head.to(_wide(hidden.dtype))
        with torch.autocast(hidden.device.type, enabled=False):
            grads = _Gradients(hidden, head, _Wanted(*ctx.needs_input_grad[:3]))
            for tile in _tiles(hidden, target, wide, ctx.tile_bytes):
                grads.add(wide, tile, out[tile.where])
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
        wide = head.to(_wide(hidden.dtype))
        grads = _Gradients(hidden, head, wanted)
        logps = hidden.new_empty(len(target), dtype=wide.weight.dtype)
        entropy = torch.empty_like(logps) if asked.entropy else None
        objective = logps.new_zeros(())
        for tile in _tiles(hidden, target, wide, asked.tile_bytes):
            weights = weigh(tile.logps, tile.where)
            logps[tile.where] = tile.logps
            if entropy is not None:
                entropy[tile.where] = tile.entropy()
            objective -= weights @ tile.logps
            grads.add(wide, tile, -weights)
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
