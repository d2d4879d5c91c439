# mypy: disable-error-code="no-untyped-def"
# Triton gives the arguments of its functions types of its own, which Python has no names for.
"""The head's epilogue as a Triton kernel; `softmax.softmax_in_blocks` says what it computes. Needs Triton."""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_bnf.policies.head.softmax import Logits, TileSoftmax, empty_rows

BLOCK = 8192  # logits of a row that are held at a time
WARPS = 16  # of a program: a tile has hardly more rows than a GPU has multiprocessors, so one program has to fill one


def softmax_fused(logits: Logits, gradient: bool, entropy: Tensor | None, scores: torch.dtype) -> TileSoftmax:
    """One program a token: the first reading finds the largest logit and the sum, the second the scores."""
    z, cap, bias = logits.products, logits.softcap, logits.bias
    count, vocabulary = z.shape
    logps, total = z.new_empty(count), z.new_empty(count)
    derivative = torch.empty_like(logps) if gradient and cap is not None else None
    # written where the products are, if they have the type asked for: a program reads an element before it writes it
    out = z if scores == z.dtype or not gradient else empty_rows(z, (count, vocabulary), scores, True)
    if not count:
        return TileSoftmax(logps, total, derivative, out)
    with torch.cuda.device(z.device) if z.is_cuda else contextlib.nullcontext():  # Triton takes the current device
        _softmax[(count,)](
            z,
            out,
            logits.target,
            z if bias is None else bias,
            logps,
            total,
            logps if derivative is None else derivative,
            logps if entropy is None else entropy,
            vocabulary,
            z.stride(0),
            out.stride(0),
            logits.scale,
            1.0 if cap is None else cap,
            BIAS=bias is not None,
            CAP=cap is not None,
            GRADIENT=gradient,
            ENTROPY=entropy is not None,
            BLOCK=min(BLOCK, triton.next_power_of_2(vocabulary)),
            num_warps=WARPS,
        )
    return TileSoftmax(logps, total, derivative, out)


@triton.jit
def _logits(z, bias, at, inside, scale, cap, BIAS: tl.constexpr, CAP: tl.constexpr):
    x = tl.load(z + at, mask=inside, other=0.0)
    if BIAS:
        x += tl.load(bias + at, mask=inside, other=0.0)
    x *= scale
    if CAP:
        x = cap * (2 * tl.sigmoid(2 * x / cap) - 1)  # tanh
    return tl.where(inside, x, -float("inf"))


@triton.jit
def _softmax(
    z,
    out,
    target,
    bias,
    logps,
    total,
    derivative,
    entropy,
    vocabulary,
    z_stride,
    out_stride,
    scale,
    cap,
    BIAS: tl.constexpr,
    CAP: tl.constexpr,
    GRADIENT: tl.constexpr,
    ENTROPY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    z += row * z_stride
    out += row * out_stride
    y = tl.load(target + row)
    own = _logits(z, bias, y, y >= 0, scale, cap, BIAS, CAP)  # before anything is written
    largest = tl.full((), -float("inf"), tl.float32)
    mass = tl.full((), 0.0, tl.float32)
    for start in range(0, vocabulary, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = _logits(z, bias, at, at < vocabulary, scale, cap, BIAS, CAP)
        larger = tl.maximum(largest, tl.max(x, 0))
        mass = mass * tl.exp(largest - larger) + tl.sum(tl.exp(x - larger), 0)
        largest = larger
    tl.store(logps + row, own - largest - tl.log(mass))
    tl.store(total + row, mass)
    if GRADIENT or ENTROPY:
        moment = tl.full((), 0.0, tl.float32)
        for start in range(0, vocabulary, BLOCK):
            at = start + tl.arange(0, BLOCK)
            inside = at < vocabulary
            x = _logits(z, bias, at, inside, scale, cap, BIAS, CAP)
            e = tl.exp(x - largest)
            if ENTROPY:
                moment += tl.sum(tl.where(inside, e * (x - largest), 0.0), 0)
            if GRADIENT:
                if CAP:
                    e *= 1 - (x / cap) * (x / cap)
                tl.store(out + at, e.to(out.dtype.element_ty), mask=inside)
        if ENTROPY:
            tl.store(entropy + row, tl.log(mass) - moment / mass)
    if GRADIENT and CAP:
        tl.store(derivative + row, 1 - (own / cap) * (own / cap))
