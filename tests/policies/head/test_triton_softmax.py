"""The Triton kernel against torch's operations, and how it is chosen and given up.

Triton's interpreter runs it (conftest.py); with TRITON_INTERPRET=0, on a CUDA device, its compiler does.
"""

from types import ModuleType
from typing import Any

import pytest
import torch
from support.kernels import DEVICE, logits

from lightning_bnf.policies.head.softmax import Logits, softmax_in_blocks
from lightning_bnf.policies.head.tiles import Head, token_logps, weighted_token_logps

pytestmark = pytest.mark.slow

KINDS = [(False, 1.0, None), (True, 1.0, None), (False, 0.25, None), (False, 1.0, 3.0), (True, -2.0, 5.0)]


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("entropy", [True, False])
@pytest.mark.parametrize(("bias", "scale", "cap"), KINDS)
def test_the_kernel_gives_what_torch_gives(
    kernels: ModuleType, bias: bool, scale: float, cap: float | None, entropy: bool, gradient: bool
) -> None:
    given = logits(bias, scale, cap)
    entropies = [torch.zeros(5, device=DEVICE) if entropy else None for _ in range(2)]
    right = softmax_in_blocks(given._replace(products=given.products.clone()), gradient, entropies[0])
    found = kernels.softmax_fused(given, gradient, entropies[1], torch.float32)
    assert found.scores.data_ptr() == given.products.data_ptr(), "no other tile is made"
    for name in ("logps", "total", "derivative", "scores") if gradient else ("logps", "total"):
        torch.testing.assert_close(getattr(found, name), getattr(right, name), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(entropies[1], entropies[0], rtol=1e-5, atol=2e-6)


def test_scores_in_halves_are_rounded_once(kernels: ModuleType) -> None:
    given = logits(False, 1.0, None)
    right = softmax_in_blocks(given._replace(products=given.products.clone()), True, None)
    found = kernels.softmax_fused(given, True, None, torch.bfloat16)
    assert found.scores.dtype == torch.bfloat16
    torch.testing.assert_close(found.scores, right.scores.to(torch.bfloat16), rtol=2**-7, atol=0)
    torch.testing.assert_close(found.total, right.total)


def test_large_logits_and_no_tokens(kernels: ModuleType) -> None:
    given = logits(False, 1.0, None)
    far = kernels.softmax_fused(given._replace(products=given.products * 1e4 + 1e5), True, None, torch.float32)
    assert far.logps.isfinite().all()
    assert far.scores.amax(-1).tolist() == [1.0] * 5
    none = kernels.softmax_fused(logits(False, 1.0, None, rows=0), True, None, torch.float32)
    assert none.logps.shape == (0,)


@pytest.mark.parametrize(("bias", "scale", "cap"), KINDS)
def test_the_head_gives_the_same_gradients_with_it(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, bias: bool, scale: float, cap: float | None
) -> None:
    """Through both ways of the head, values and gradients of hidden states, weight and bias, in tiles of 4 tokens."""
    g = torch.Generator().manual_seed(1)
    inputs = [torch.randn(9, 6, generator=g), torch.randn(17, 6, generator=g), torch.randn(17, generator=g)]
    inputs = [x.to(DEVICE).requires_grad_() for x in inputs[: 3 if bias else 2]]
    target, weights = torch.randint(17, (9,), generator=g).to(DEVICE), torch.randn(9, generator=g).to(DEVICE)

    def results() -> list[Any]:
        head = Head(inputs[1], inputs[2] if bias else None, scale, cap)
        own, entropy = token_logps(inputs[0], target, head, entropy=True, tile_bytes=4 * 17 * 4)
        weighted = weighted_token_logps(inputs[0], target, head, lambda _, where: weights[where], tile_bytes=4 * 17 * 4)
        grads = torch.autograd.grad(-(weights * own).sum(), inputs), torch.autograd.grad(weighted.objective, inputs)
        return [own.detach(), entropy, weighted.logps, *grads[0], *grads[1]]

    right = results()
    used: list[int] = []

    def fused(given: Logits, gradient: bool, entropy: Any, scores: torch.dtype) -> Any:
        used.append(len(given.target))
        return kernels.softmax_fused(given, gradient, entropy, scores)

    monkeypatch.setattr("lightning_bnf.policies.head.tiles.tile_softmax", fused)
    torch.testing.assert_close(results(), right, rtol=1e-5, atol=1e-5)
    assert sum(used) == 27, "nine tokens forward, again backward, and once weighted"
