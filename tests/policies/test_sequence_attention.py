"""Attention within sequences against dense masks: values, gradients, what is computed, and whole models."""

from functools import partial
from typing import Any

import pytest
import torch
import transformers
from support.architectures import ARCHITECTURES, ROWS, alike_rows, assert_alike, gradients, long_rows, policy_of
from support.attention import dense, varlen_by_hand
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lightning_bnf.batch import MicroBatch
from lightning_bnf.costs.plan.step import FORMULAS
from lightning_bnf.datamodules.steps.layout import packed, packed_shared, padded, shared_prompt
from lightning_bnf.policies import sequence_attention
from lightning_bnf.policies.attention import sees
from lightning_bnf.policies.sequence_attention import kernel_for, merged_attention, scores

BF16 = torch.bfloat16


def documents(batch: MicroBatch) -> Any:
    assert batch.sequences is not None
    return batch.sequences.documents


def given(batch: MicroBatch, dtype: torch.dtype, heads: int = 4, fewer: int = 2, size: int = 8) -> list[Tensor]:
    """Queries, keys, values and a gradient, drawn for the batch's tokens."""
    rows, width = batch.inputs["input_ids"].shape
    draw = torch.Generator().manual_seed(1)
    shapes = [(rows, count, width, size) for count in (heads, fewer, fewer, heads)]
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize("fewer", [4, 2, 1])
def test_merged_passes_equal_dense_attention(dtype: torch.dtype, close: float, fewer: int) -> None:
    """Values and gradients, of heads that share keys and of such that do not."""
    batch = shared_prompt(long_rows())
    segments = batch.inputs["segments"]
    *tensors, gradient = given(batch, dtype, fewer=fewer)
    for one in tensors:
        one.requires_grad_()
    gradient = gradient.masked_fill((segments < 0)[:, None, :, None], 0)
    wanted, found = dense(*tensors, sees(segments)), merged_attention(*tensors, documents(batch)).transpose(1, 2)
    real = (segments >= 0)[:, None, :, None]
    torch.testing.assert_close(found * real, wanted * real, rtol=0, atol=close)
    of_wanted, of_found = (torch.autograd.grad(one, tensors, gradient) for one in (wanted, found))
    for ours, theirs in zip(of_found, of_wanted):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=close)


def test_three_passes_equal_dense_attention() -> None:
    """Of what all documents see, of prompts, and of completions."""
    batch = packed_shared(alike_rows(), common=14)
    assert documents(batch)[0] == (0, 0, 14, (), 0), "what they have in common"
    *tensors, gradient = given(batch, torch.float64)
    for one in tensors:
        one.requires_grad_()
    seen = sees(batch.inputs["segments"], documents=batch.inputs["documents"])
    assert scores(documents(batch)) == int(seen.sum()), "no pair is computed that is not seen"
    wanted, found = dense(*tensors, seen), merged_attention(*tensors, documents(batch)).transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)
    of_wanted, of_found = (torch.autograd.grad(one, tensors, gradient) for one in (wanted, found))
    for ours, theirs in zip(of_found, of_wanted):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("narrowest", [0, 512])
def test_merged_passes_of_halves_round_about_as_dense_attention_does(
    monkeypatch: pytest.MonkeyPatch, narrowest: int
) -> None:
    """Values and gradients, whichever type the backward pass is computed in."""
    monkeypatch.setattr(sequence_attention, "NARROWEST_IN_HALF", narrowest)
    batch = shared_prompt(long_rows())
    segments = batch.inputs["segments"]
    *exact, gradient = given(batch, torch.float64)
    halves = [one.to(BF16) for one in exact]
    for one in (*exact, *halves):
        one.requires_grad_()
    real = (segments >= 0)[:, None, :, None]
    mask = sees(segments)
    found = [
        (dense(*exact, mask) * real, exact),
        (merged_attention(*halves, documents(batch)).transpose(1, 2) * real, halves),
        (functional.scaled_dot_product_attention(*halves, mask[:, None], enable_gqa=True) * real, halves),
    ]
    wanted, ours, theirs = (
        [value, *torch.autograd.grad(value, tensors, gradient.to(value.dtype))] for value, tensors in found
    )
    for right, one, of_torch in zip(wanted, ours, theirs):
        assert (one.double() - right).abs().max() < 1.5 * (of_torch.double() - right).abs().max()


def test_operations_are_those_that_are_allowed() -> None:
    """Pairs of tokens that see each other, 4 D operations each; torch counts whole squares of causal passes."""
    batch = shared_prompt(long_rows())
    seen = sees(batch.inputs["segments"]) & (batch.inputs["segments"] >= 0)[:, None]
    query, key, value, gradient = given(batch, torch.float32, fewer=4)
    assert 1 <= scores(documents(batch)) / int(seen.sum()) < 1.05
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    tensors = [one.requires_grad_() for one in (query, key, value)]
    with counter:
        made = merged_attention(*tensors, documents(batch))
    each = 4 * query.shape[-1] * query.shape[1]
    assert counter.get_total_flops() == each * scores(documents(batch), causal=False)
    with counter:
        made.backward(gradient.transpose(1, 2))
    assert counter.get_total_flops() == 5 / 2 * each * scores(documents(batch), causal=False)
    prompt, chosen, rejected = 1000, 200, 300
    row = (0, 0, prompt, (chosen, rejected))
    allowed = sum(n * (n + 1) // 2 for n in (prompt, chosen, rejected)) + prompt * (chosen + rejected)
    assert scores([sequence_attention.Document(*row)]) == allowed


@pytest.mark.parametrize(
    ("layout", "rows"),
    [
        (shared_prompt, long_rows),
        (packed_shared, long_rows),
        (packed, long_rows),
        (partial(packed_shared, common=14), alike_rows),
    ],
)
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "Mistral of 8", "Gemma3Text of 8"])
def test_models_give_what_they_give_of_padded_rows(
    architecture: str, layout: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By merged passes on a CPU, where the model takes torch's attention, and by what stands for torch's kernel on a
    GPU, which knows windows, here of 8 tokens."""
    name, *window = architecture.split(" of ")
    changes = {"sliding_window": int(window[0])} if window else {}
    wanted = gradients(policy_of(name, **changes), padded(rows()))
    monkeypatch.setattr(sequence_attention, "varlen_attn", lambda: varlen_by_hand)
    monkeypatch.setattr(sequence_attention, "HALVES", (torch.float32,))
    for planned, kernel in ((None, "merged"), ("cuda", "varlen")):
        policy = policy_of(name, **changes)
        policy.planned_for = planned
        eager = policy.causal_lm.config._attn_implementation == "eager"
        assert policy.attention_kernel == (None if eager else kernel)
        told = policy.model_inputs(layout(rows()))
        assert ("sequences" in told) == (not eager and (planned is not None or not window))
        assert_alike(gradients(policy, layout(rows())), wanted)


def test_other_calls_of_the_same_attention_are_as_they_were() -> None:
    """And what layers are told has no meaning to an attention that does not know it."""
    policy, rows = policy_of("Llama"), long_rows()
    sequence_attention.install("sdpa")
    sequence_attention.install("sdpa")
    known = transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert not isinstance(known.plain, sequence_attention.SequenceAttention)
    ids = torch.tensor([rows[0].prompt_ids])
    assert policy.causal_lm.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > ids.shape[1]
    told = policy.model_inputs(shared_prompt(rows))
    policy.causal_lm.set_attn_implementation("eager")
    with pytest.raises(RuntimeError, match="size"):
        policy.body(**told)


def test_what_a_kernel_does_not_know_is_not_left_out() -> None:
    batch = shared_prompt(ROWS)
    query, key, value, _ = given(batch, torch.float32)
    assert batch.sequences is not None
    attend = sequence_attention.SequenceAttention(lambda *_, **__: (query, None))
    told = sequence_attention.Told(batch.sequences, "merged")
    for named in ({"softcap": 5.0}, {"position_bias": query}, {"dropout": 0.1}):
        with pytest.raises(NotImplementedError, match=next(iter(named))):
            attend(torch.nn.Linear(1, 1), query, key, value, None, told, **named)


def test_which_kernel_takes_sequences() -> None:
    """Nothing is asked of a device that is not there; a GPU's kernel takes halves, and heads of up to 256."""
    assert kernel_for("sdpa", 64, "cpu", torch.float32) == "merged"
    assert kernel_for("sdpa", 64, "cuda", BF16) == "varlen"
    assert kernel_for("flash_attention_2", 64, "cuda", BF16) == "flash"
    assert kernel_for("sdpa", 64, "cuda", torch.float32) is None
    assert kernel_for("sdpa", 512, "cuda", BF16) is None
    assert kernel_for("sdpa", 64, "mps", BF16) is None
    assert kernel_for("eager", 64, "cpu", BF16) is None
    assert kernel_for("flex_attention", 64, "cuda", BF16) is None
