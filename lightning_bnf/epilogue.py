"""What follows the product of a tile: from logits to exponentials, their sums, and the targets' log-probs.

Two ways: torch's own operations, a block of rows after the other, and on CUDA one Triton kernel, which reads the logits
twice and writes the exponentials once, in the precision of the product that comes next.
"""

import functools
import warnings
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_ROWS = 8  # of a tile that are softened together on a CPU: they stay in its cache from the first pass to the last


class Logits(NamedTuple):
    """cap * tanh(scale * (products + bias) / cap) of some tokens.

    products: (n, V), used up; bias: (V,) or None; target: (n,) token ids
    """

    products: Tensor
    target: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None


class Softened(NamedTuple):
    """Of each token, with m its largest logit:

    logps: (n,) log pi(target); total: (n,) sum of e^(z - m); slope: (n,) of the soft-cap at the target, or None;
    scores: (n, V) e^(z - m) times the soft-cap's slope, good only where a gradient was asked for
    """

    logps: Tensor
    total: Tensor
    slope: Tensor | None
    scores: Tensor


def soften(logits: Logits, gradient: bool, entropy: Tensor | None, scores: torch.dtype) -> Softened:
    """The softmax of each token, not normalised: what divides a row multiplies the row of a product instead, which is a
    hundred times smaller. `entropy` (n,), if given, is filled; `scores` is the type that scores may have."""
    device = logits.products.device
    if device.type == "cuda" and logits.products.dtype == torch.float32 and kernel_is_right(device):
        from lightning_bnf.kernels import soften_fused

        return soften_fused(logits, gradient, entropy, scores)
    return soften_in_blocks(logits, gradient, entropy)


def soften_in_blocks(logits: Logits, gradient: bool, entropy: Tensor | None) -> Softened:
    """By torch's operations, the scores where the products were."""
    products, cap = logits.products, logits.softcap
    logps, totals = products.new_empty(len(products)), products.new_empty(len(products))
    slopes = torch.empty_like(logps) if gradient and cap is not None else None
    rows = BLOCK_ROWS if products.device.type == "cpu" else max(1, len(products))
    for at in (slice(start, start + rows) for start in range(0, len(products), rows)):
        z, y = products[at], logits.target[at, None]
        if logits.bias is not None:
            z += logits.bias
        if logits.scale != 1.0:
            z *= logits.scale
        slope = None
        if cap is not None:
            z.div_(cap).tanh_()
            slope = 1 - z.square() if gradient else None
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
        if slope is not None and slopes is not None:
            slopes[at] = slope.gather(-1, y).squeeze(-1)
            z *= slope
    return Softened(logps, totals, slopes, products)


@functools.cache
def kernel_is_right(device: torch.device) -> bool:
    """Whether Triton is there, compiles the kernel for `device`, and gives the numbers that torch gives.

    Tried once, on random logits of more than one block and in all the ways that the head uses it; where it fails, a
    sentence says why, and torch's operations are used.
    """
    try:
        from lightning_bnf.kernels import BLOCK, soften_fused
    except ImportError:
        return False
    draw, vocabulary = torch.Generator().manual_seed(1), 2 * BLOCK + 5
    z, bias = 8 * torch.randn(3, vocabulary, generator=draw), torch.randn(vocabulary, generator=draw).to(device)
    target = torch.randint(vocabulary, (3,), generator=draw).to(device)
    try:
        for softcap, own_bias, gradient, entropy in product((None, 5.0), (None, bias), (True, False), (True, False)):
            given = [Logits(z.to(device, copy=True), target, own_bias, 0.5, softcap) for _ in range(3)]
            entropies = [torch.zeros(3, device=device) if entropy else None for _ in given]
            right = soften_in_blocks(given[0], gradient, entropies[0])
            for scores, logits, own in zip((torch.float32, torch.bfloat16), given[1:], entropies[1:]):
                found = soften_fused(logits, gradient, own, scores)
                torch.testing.assert_close([*found[:3], own], [*right[:3], entropies[0]], rtol=1e-4, atol=1e-5)
                if gradient:
                    torch.testing.assert_close(found.scores, right.scores.to(scores), rtol=1e-2, atol=1e-5)
    except Exception as error:  # a compiler, a driver, or wrong numbers: none of them is to end a run
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"the head's Triton kernel is not used on {device}: {why}", RuntimeWarning, stacklevel=2)
        return False
    return True
