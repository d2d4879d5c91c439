"""The tiled head against log-softmax over the whole vocabulary."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import lightning_bnf.policies.head.tiles as head_module
from lightning_bnf.policies.head.tiles import Head, target_logits, token_logps, weighted_token_logps

N, H, V = 9, 6, 17
TILE = 4 * V * 8  # bytes of a tile of 4 tokens in float64: 9 tokens make tiles of 4, 4 and 1


def case(bias: bool, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(N, H, generator=g), torch.randn(V, H, generator=g)
    b = torch.randn(V, generator=g).to(dtype).requires_grad_() if bias else None
    target = torch.randint(V, (N,), generator=g)
    weights = torch.randn(N, generator=g, dtype=torch.float64).to(dtype)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), b, target, weights


def plain(
    hidden: Tensor, target: Tensor, weight: Tensor, bias: Tensor | None, scale: float, cap: float | None
) -> Tensor:
    logits = scale * (hidden @ weight.T + (0 if bias is None else bias))
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    return logits.log_softmax(-1)[torch.arange(len(target)), target]


KINDS = [(False, 1.0, None), (True, 1.0, None), (False, 0.25, None), (False, 1.0, 3.0), (True, 2.0, 5.0)]


@pytest.mark.parametrize(("bias", "scale", "cap"), KINDS)
def test_equals_the_whole_vocabulary(bias: bool, scale: float, cap: float | None) -> None:
    hidden, weight, b, target, weights = case(bias)
    inputs = [x for x in (hidden, weight, b) if x is not None]
    head = Head(weight, b, scale, cap)
    right = plain(hidden, target, weight, b, scale, cap)
    grads = torch.autograd.grad(-(weights * right).sum(), inputs)

    logps = token_logps(hidden, target, head, tile_bytes=TILE).logps
    torch.testing.assert_close(logps, right, rtol=1e-12, atol=1e-12)
    for ours, oracle in zip(torch.autograd.grad(-(weights * logps).sum(), inputs), grads):
        torch.testing.assert_close(ours, oracle, rtol=1e-10, atol=1e-12)

    objective, detached, _ = weighted_token_logps(
        hidden, target, head, lambda _, where: weights[where], tile_bytes=TILE
    )
    torch.testing.assert_close(detached, right, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(objective, -(weights * right).sum(), rtol=1e-12, atol=1e-12)
    for ours, oracle in zip(torch.autograd.grad(objective * 3.0, inputs), grads):
        torch.testing.assert_close(ours, 3.0 * oracle, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("bias", "scale", "cap"), KINDS)
def test_the_targets_own_logits(bias: bool, scale: float, cap: float | None) -> None:
    """The logit less the log-sum-exp of all logits is the log-prob; tiles of 4 tokens' weight rows."""
    hidden, weight, b, target, _ = case(bias)
    z = scale * (hidden @ weight.T + (0 if b is None else b))
    z = z if cap is None else cap * torch.tanh(z / cap)
    logits = target_logits(hidden, target, Head(weight, b, scale, cap), tile_bytes=4 * H * 8)
    torch.testing.assert_close(logits, z[torch.arange(N), target].detach(), rtol=1e-12, atol=1e-12)
    assert not logits.requires_grad
    half = target_logits(hidden.bfloat16(), target, Head(weight.bfloat16(), None if b is None else b.bfloat16()))
    assert half.dtype == torch.float32


def test_weights_may_depend_on_the_log_probs() -> None:
    hidden, weight, _, target, _ = case(False)
    objective, _, _ = weighted_token_logps(hidden, target, Head(weight), lambda logp, _: logp.exp(), tile_bytes=TILE)
    right = plain(hidden, target, weight, None, 1.0, None)
    oracle = -(right.detach().exp() * right).sum()
    torch.testing.assert_close(objective, oracle)
    torch.testing.assert_close(*(torch.autograd.grad(x, hidden)[0] for x in (objective, oracle)))


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, weight, _, target, weights = case(False)
    frozen = Head(weight.detach())
    objective, _, _ = weighted_token_logps(hidden, target, frozen, lambda _, where: weights[where], tile_bytes=TILE)
    right = -(weights * plain(hidden, target, weight, None, 1.0, None)).sum()
    torch.testing.assert_close(torch.autograd.grad(objective, hidden), torch.autograd.grad(right, hidden))


def test_bfloat16_weights_are_computed_in_float32() -> None:
    hidden, weight, _, target, _ = case(False, torch.bfloat16)
    logps = token_logps(hidden, target, Head(weight)).logps
    assert logps.dtype == torch.float32
    torch.testing.assert_close(logps, plain(hidden.float(), target, weight.float(), None, 1.0, None))
    logps.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


def test_autocast_does_not_reach_inside() -> None:
    hidden, weight, _, target, weights = case(False, torch.float32)
    right = token_logps(hidden, target, Head(weight)).logps
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = token_logps(hidden, target, Head(weight)).logps
        objective, _, _ = weighted_token_logps(hidden, target, Head(weight), lambda _, where: weights[where])
        grads = torch.autograd.grad(-(weights * inside).sum(), (hidden, weight))
        fused = torch.autograd.grad(objective, (hidden, weight))
    torch.testing.assert_close(inside, right, rtol=0, atol=0)
    for a, b, c in zip(torch.autograd.grad(-(weights * right).sum(), (hidden, weight)), grads, fused):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)


def test_no_tokens_give_an_objective_of_zero() -> None:
    hidden, weight, _, target, _ = case(False)
    objective, logps, _ = weighted_token_logps(hidden[:0], target[:0], Head(weight), lambda logp, _: logp)
    assert objective.item() == 0
    assert logps.shape == (0,)
    assert torch.autograd.grad(objective, weight)[0].abs().sum() == 0


def test_memory_that_is_not_written_yet_is_not_read() -> None:
    """Torch fills new memory with NaN where algorithms are to be deterministic."""
    hidden, weight, _, target, weights = case(False)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty_like(weight).isnan().all()
        objective = weighted_token_logps(
            hidden, target, Head(weight), lambda _, where: weights[where], tile_bytes=TILE
        ).objective
        fused = torch.autograd.grad(objective, (hidden, weight))
        logps = token_logps(hidden, target, Head(weight), tile_bytes=TILE).logps
        again = torch.autograd.grad(-(weights * logps).sum(), (hidden, weight))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(fused, again)
    assert all(gradient.isfinite().all() for gradient in fused)


def test_a_second_backward_pass_is_refused() -> None:
    hidden, weight, _, target, weights = case(False)
    objective, _, _ = weighted_token_logps(hidden, target, Head(weight), lambda _, where: weights[where])
    objective.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass only"):
        objective.backward()


def test_without_gradients_the_numbers_are_the_same() -> None:
    hidden, weight, _, target, weights = case(False)
    objective, _, _ = weighted_token_logps(hidden, target, Head(weight), lambda _, where: weights[where])
    with torch.no_grad():
        silent, _, _ = weighted_token_logps(hidden, target, Head(weight), lambda _, where: weights[where])
    assert not silent.requires_grad
    assert silent.item() == objective.item()


@pytest.mark.parametrize(("bias", "scale", "cap"), KINDS)
def test_entropy_is_that_of_the_whole_vocabulary(bias: bool, scale: float, cap: float | None) -> None:
    hidden, weight, b, target, weights = case(bias)
    logits = scale * (hidden @ weight.T + (0 if b is None else b))
    right = torch.distributions.Categorical(logits=logits if cap is None else cap * torch.tanh(logits / cap)).entropy()
    head = Head(weight, b, scale, cap)
    both = token_logps(hidden, target, head, entropy=True, tile_bytes=TILE)
    fused = weighted_token_logps(hidden, target, head, lambda _, where: weights[where], entropy=True, tile_bytes=TILE)
    for found in (both.entropy, fused.entropy):
        assert found is not None
        assert not found.requires_grad
        torch.testing.assert_close(found, right.detach())
    (plain_grad,) = torch.autograd.grad(-(weights * both.logps).sum(), hidden)
    torch.testing.assert_close(torch.autograd.grad(fused.objective, hidden)[0], plain_grad)


@pytest.mark.parametrize(("bias", "scale", "cap"), KINDS)
def test_products_of_halves_are_summed_in_float32(
    monkeypatch: pytest.MonkeyPatch, bias: bool, scale: float, cap: float | None
) -> None:
    """What CUDA does with bf16 weights: with hidden states that bf16 holds too, the log-probs are float32's; what
    the gradients are made of is rounded to 8 bits once, so they are within a percent of the largest."""
    hidden, weight, b, target, weights = case(bias, torch.bfloat16)
    wide = [None if x is None else x.detach().float().requires_grad_() for x in (hidden, weight, b)]
    assert wide[0] is not None
    assert wide[1] is not None
    right = plain(wide[0], target, wide[1], wide[2], scale, cap)
    grads = torch.autograd.grad(-(weights.float() * right).sum(), [x for x in wide if x is not None])
    monkeypatch.setattr(head_module, "_product_dtype", lambda *_: torch.bfloat16)
    head = Head(weight, b, scale, cap)
    logps = token_logps(hidden, target, head, tile_bytes=TILE // 2).logps
    objective, detached, _ = weighted_token_logps(
        hidden, target, head, lambda _, where: weights[where].float(), tile_bytes=TILE // 2
    )
    inputs = [x for x in (hidden, weight, b) if x is not None]
    for found in (logps, detached):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)
    for value in (-(weights.float() * logps).sum(), objective):
        for ours, oracle in zip(torch.autograd.grad(value, inputs), grads):
            assert ours.dtype == torch.bfloat16
            torch.testing.assert_close(ours.float(), oracle, rtol=0, atol=0.01 * float(oracle.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "trained", "rows"), [("cpu", True, 256), ("cuda", True, 2048), ("cuda", False, 1024)]
)
def test_a_gpu_gets_large_tiles(monkeypatch: pytest.MonkeyPatch, device: str, trained: bool, rows: int) -> None:
    """4,096 tokens and Llama 3's vocabulary, in tensors without contents: each tile reads and writes the whole gradient
    of the weight, which takes as long as the products of some 900 tokens on an H100."""
    taken = []
    tiles = head_module._tiles

    def seen(*args: Any) -> Iterator[Any]:
        for tile in tiles(*args):
            taken.append(tile.where.stop - tile.where.start)
            yield tile

    monkeypatch.setattr(head_module, "_tiles", seen)
    with FakeTensorMode():
        hidden = torch.empty(4096, 64, requires_grad=True)
        head = Head(torch.empty(128256, 64, requires_grad=trained), device=device)
        target = torch.zeros(4096, dtype=torch.long)
        token_logps(hidden, target, head).logps.sum().backward()
        weighted_token_logps(hidden, target, head, lambda found, _: torch.ones_like(found))
    assert set(taken) == {rows}
    assert sum(taken) == 3 * 4096, "forward, again for its backward pass, and once for a token loss"


def test_rows_of_a_gpus_tile_begin_at_multiples_of_16_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary of 17 in rows of 32, and the same numbers."""
    hidden, weight, _, target, _ = case(False)
    strides: list[tuple[int, ...]] = []
    plain = head_module.tile_softmax
    monkeypatch.setattr(
        head_module,
        "tile_softmax",
        lambda logits, *rest: strides.append(logits.products.stride()) or plain(logits, *rest),
    )
    found = {}
    for device in (None, "cuda"):
        logps = token_logps(hidden, target, Head(weight, device=device)).logps
        found[device] = (logps.detach(), *torch.autograd.grad(logps.sum(), (hidden, weight)))
    assert strides == [(V, 1)] * 2 + [(32, 1)] * 2
    torch.testing.assert_close(found["cuda"], found[None], rtol=0, atol=1e-12)
