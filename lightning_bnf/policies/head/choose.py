"""Which softmax a tile takes: the Triton kernel where it is there and right, else torch's operations."""

import functools
import warnings
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from lightning_bnf.policies.head.softmax import Logits, TileSoftmax, softmax_in_blocks


def tile_softmax(logits: Logits, gradient: bool, entropy: Tensor | None, scores: torch.dtype) -> TileSoftmax:
    """The softmax of each token, not normalised: what divides a row multiplies the row of a product instead, which is a
    hundred times smaller. `entropy` (n,), if given, is filled; `scores` is the type that scores may have."""
    products, tried = logits.products, Variant.of(logits, gradient, entropy is not None, scores)
    on_cuda = products.device.type == "cuda" and not isinstance(products, FakeTensor)  # of a plan, on any device
    if on_cuda and products.dtype == torch.float32 and kernel_is_right(products.device, tried):
        from lightning_bnf.policies.head.triton_softmax import softmax_fused

        return softmax_fused(logits, gradient, entropy, scores)
    return softmax_in_blocks(logits, gradient, entropy)


class Variant(NamedTuple):
    """What the kernel is compiled for: whether there is a bias and a soft-cap, whether the gradient and entropies are
    asked for, the scores' type, and whether rows are whole multiples of 16 numbers, which are read 16 bytes at once."""

    bias: bool
    softcap: bool
    gradient: bool
    entropy: bool
    scores: torch.dtype
    aligned: bool

    @classmethod
    def of(cls, logits: Logits, gradient: bool, entropy: bool, scores: torch.dtype) -> "Variant":
        """Of what a tile asks for."""
        aligned = logits.products.shape[1] % 16 == 0
        return cls(logits.bias is not None, logits.softcap is not None, gradient, entropy, scores, aligned)


@functools.cache
def kernel_is_right(device: torch.device, variant: Variant) -> bool:
    """Whether Triton is there, compiles the kernel for `device`, and gives the numbers that torch gives.

    Tried once for each variant that is used, as each is compiled for itself, on random logits of more than one block;
    where it fails, a sentence says why, and torch's operations are used.
    """
    try:
        from lightning_bnf.policies.head.triton_softmax import BLOCK, softmax_fused
    except ImportError:
        return False
    draw, vocabulary = torch.Generator().manual_seed(1), 2 * BLOCK + (16 if variant.aligned else 5)
    z, bias = 8 * torch.randn(3, vocabulary, generator=draw), torch.randn(vocabulary, generator=draw).to(device)
    target = torch.randint(vocabulary, (3,), generator=draw).to(device)
    rest = target, bias if variant.bias else None, 0.5, 5.0 if variant.softcap else None
    entropies = [torch.zeros(3, device=device) if variant.entropy else None for _ in range(2)]
    try:
        right = softmax_in_blocks(Logits(z.to(device, copy=True), *rest), variant.gradient, entropies[0])
        found = softmax_fused(Logits(z.to(device, copy=True), *rest), variant.gradient, entropies[1], variant.scores)
        torch.testing.assert_close([*found[:3], entropies[1]], [*right[:3], entropies[0]], rtol=1e-4, atol=1e-5)
        if variant.gradient:
            torch.testing.assert_close(found.scores, right.scores.to(variant.scores), rtol=1e-2, atol=1e-5)
    except Exception as error:  # a compiler, a driver, or wrong numbers: none of them is to end a run
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"the head's Triton kernel is not used on {device}: {why}", UserWarning, stacklevel=2)
        return False
    return True
