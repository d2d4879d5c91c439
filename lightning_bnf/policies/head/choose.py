"""Which softmax a tile takes: the Triton kernel where it is there and right, else torch's operations."""

import functools
import warnings
from itertools import product

import torch
from torch import Tensor

from lightning_bnf.policies.head.softmax import Logits, TileSoftmax, softmax_in_blocks


def tile_softmax(logits: Logits, gradient: bool, entropy: Tensor | None, scores: torch.dtype) -> TileSoftmax:
    """The softmax of each token, not normalised: what divides a row multiplies the row of a product instead, which is a
    hundred times smaller. `entropy` (n,), if given, is filled; `scores` is the type that scores may have."""
    device = logits.products.device
    if device.type == "cuda" and logits.products.dtype == torch.float32 and kernel_is_right(device):
        from lightning_bnf.policies.head.triton_softmax import softmax_fused

        return softmax_fused(logits, gradient, entropy, scores)
    return softmax_in_blocks(logits, gradient, entropy)


@functools.cache
def kernel_is_right(device: torch.device) -> bool:
    """Whether Triton is there, compiles the kernel for `device`, and gives the numbers that torch gives.

    Tried once, on random logits of more than one block and in all the ways that the head uses it; where it fails, a
    sentence says why, and torch's operations are used.
    """
    try:
        from lightning_bnf.policies.head.triton_softmax import BLOCK, softmax_fused
    except ImportError:
        return False
    draw, vocabulary = torch.Generator().manual_seed(1), 2 * BLOCK + 5
    z, bias = 8 * torch.randn(3, vocabulary, generator=draw), torch.randn(vocabulary, generator=draw).to(device)
    target = torch.randint(vocabulary, (3,), generator=draw).to(device)
    try:
        for softcap, own_bias, gradient, entropy in product((None, 5.0), (None, bias), (True, False), (True, False)):
            given = [Logits(z.to(device, copy=True), target, own_bias, 0.5, softcap) for _ in range(3)]
            entropies = [torch.zeros(3, device=device) if entropy else None for _ in given]
            right = softmax_in_blocks(given[0], gradient, entropies[0])
            for scores, logits, own in zip((torch.float32, torch.bfloat16), given[1:], entropies[1:]):
                found = softmax_fused(logits, gradient, own, scores)
                torch.testing.assert_close([*found[:3], own], [*right[:3], entropies[0]], rtol=1e-4, atol=1e-5)
                if gradient:
                    torch.testing.assert_close(found.scores, right.scores.to(scores), rtol=1e-2, atol=1e-5)
    except Exception as error:  # a compiler, a driver, or wrong numbers: none of them is to end a run
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"the head's Triton kernel is not used on {device}: {why}", RuntimeWarning, stacklevel=2)
        return False
    return True
