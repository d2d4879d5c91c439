"""What follows the product of a tile: from logits to exponentials, their sums, and the targets' log-probs.

Two ways: torch's own operations, a block of rows after the other, and on CUDA one Triton kernel, which reads the logits
twice and writes the exponentials once, in the precision of the product that comes next.
"""

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_ROWS = 8  # of a tile that are worked on together on a CPU: they stay in its cache from the first pass to the last


class Logits(NamedTuple):
    """cap * tanh(scale * (products + bias) / cap) of some tokens.

    products: (n, V), used up; bias: (V,) or None; target: (n,) token ids
    """

    products: Tensor
    target: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None


class TileSoftmax(NamedTuple):
    """Of each token, with m its largest logit:

    logps: (n,) log pi(target); total: (n,) sum of e^(z - m); derivative: (n,) of the soft-cap at the target, or None;
    scores: (n, V) e^(z - m) times the soft-cap's derivative, good only where a gradient was asked for
    """

    logps: Tensor
    total: Tensor
    derivative: Tensor | None
    scores: Tensor


def empty_rows(like: Tensor, shape: tuple[int, int], dtype: torch.dtype, aligned: bool) -> Tensor:
    """A matrix to be filled, on a tensor's device; `aligned`: whether each row begins at a whole multiple of 16 numbers
    in memory, which products on GPUs need to take their fast kernels, whatever the vocabulary."""
    rows, width = shape
    return like.new_empty(rows, -(-width // 16) * 16 if aligned else width, dtype=dtype)[:, :width]


def softmax_in_blocks(logits: Logits, gradient: bool, entropy: Tensor | None) -> TileSoftmax:
    """By torch's operations, the scores where the products were."""
    products, cap = logits.products, logits.softcap
    logps, totals = products.new_empty(len(products)), products.new_empty(len(products))
    derivatives = torch.empty_like(logps) if gradient and cap is not None else None
    rows = BLOCK_ROWS if products.device.type == "cpu" else max(1, len(products))
    for at in (slice(start, start + rows) for start in range(0, len(products), rows)):
        z, y = products[at], logits.target[at, None]
        if logits.bias is not None:
            z += logits.bias
        if logits.scale != 1.0:
            z *= logits.scale
        derivative = None
        if cap is not None:
            z.div_(cap).tanh_()
            derivative = 1 - z.square() if gradient else None
            z *= cap
        z -= z.amax(-1, keepdim=True)
        at_target = z.gather(-1, y).squeeze(-1)
        if entropy is None:
            total = z.exp_().sum(-1)
        else:
            e = z.exp()
            total = e.sum(-1)
            entropy[at] = total.log() - (e * z).sum(-1) / total
            z.copy_(e)
        logps[at] = at_target - total.log()
        totals[at] = total
        if derivative is not None and derivatives is not None:
            derivatives[at] = derivative.gather(-1, y).squeeze(-1)
            z *= derivative
    return TileSoftmax(logps, totals, derivatives, products)
