"""What each way of attention is told of packed sequences and shared prompts."""

from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from support.architectures import (
    ARCHITECTURES,
    ROWS,
    assert_alike,
    gradients,
    long_rows,
    policy_of,
)
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_mask
from transformers.masking_utils import flash_attention_mask

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.layout import packed, padded, shared_prompt
from lightning_bnf.policies.attention import added_once, model_inputs, sees
from lightning_bnf.training.fitting import preferred_layout

pytestmark = pytest.mark.slow


def attention_by_hand(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **named: Any,
) -> tuple[Tensor, None]:
    """What FlashAttention's kernel for sequences one behind the other does: (1, heads, T, D) -> (1, T, heads, D)."""
    assert attention_mask is None
    assert torch.equal(named["cu_seq_lens_q"], named["cu_seq_lens_k"])
    ends = named["cu_seq_lens_q"].tolist()
    assert named["cu_seq_lens_q"].dtype == torch.int32
    assert named["max_length_q"] == named["max_length_k"] == max(b - a for a, b in pairwise(ends))
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    found = []
    for start, end in pairwise(ends):
        q, k, v = (tensor[:, :, start:end] for tensor in (query, key, value))
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        scores = scores if softcap is None else softcap * (scores / softcap).tanh()
        later = torch.ones(end - start, end - start, dtype=torch.bool).triu(1)
        found.append(scores.masked_fill(later, -torch.inf).softmax(-1) @ v)
    return torch.cat(found, dim=2).transpose(1, 2), None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_flash_attention_is_told_where_packed_sequences_end(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels need a GPU; here a function of the same arguments stands for them."""
    monkeypatch.setitem(transformers.AttentionInterface._global_mapping, "flash_by_hand", attention_by_hand)
    monkeypatch.setitem(transformers.AttentionMaskInterface._global_mapping, "flash_by_hand", flash_attention_mask)
    policy, rows = policy_of(architecture), long_rows()
    wanted = gradients(policy, padded(rows))
    policy.causal_lm.config._attn_implementation = "flash_by_hand"
    found = gradients(policy, packed(rows))
    assert_alike(found, wanted)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_flex_attention_takes_shared_prompts_in_blocks(architecture: str) -> None:
    """Log-probs alone, and uncompiled: on the CPU it has no backward pass."""
    policy, rows = policy_of(architecture), long_rows()
    wanted = policy(padded(rows)).token_logps.detach()
    if not policy.causal_lm._supports_flex_attn:
        with pytest.raises(ValueError, match=r"does not support .*flex"):
            policy.causal_lm.set_attn_implementation("flex_attention")
        return
    policy.causal_lm.set_attn_implementation("flex_attention")
    assert isinstance(policy.model_inputs(shared_prompt(rows))["attention_mask"], BlockMask)
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        for layout in (shared_prompt, packed):
            torch.testing.assert_close(policy(layout(rows)).token_logps, wanted, rtol=0, atol=1e-5)


def test_blocks_are_those_of_the_mask() -> None:
    batch = shared_prompt(long_rows())
    segments = batch.inputs["segments"]
    blocks = model_inputs(batch, "flex_attention", torch.float32, {})["attention_mask"]
    rows, heads, width = 2, 1, segments.shape[1]
    made = create_mask(blocks.mask_mod, rows, heads, width, width, "cpu")
    assert torch.equal(made[:, 0], sees(segments))


@pytest.mark.parametrize("attention", ["flash_attention_2", "kernels-community/flash-attn2"])
def test_flash_attention_cannot_share_prompts(attention: str) -> None:
    """Its kernels take no mask of who sees whom, so `auto` packs."""
    assert preferred_layout("auto", attention, long_rows(), (1, -1)) == "packed"
    with pytest.raises(DataError, match=rf"with attention {attention}, .* got 'shared_prompt'"):
        preferred_layout("shared_prompt", attention, long_rows(), (1, -1))


def test_a_gpu_gets_a_mask_that_its_kernels_take_as_it_is() -> None:
    """Of 13 tokens: rows of 16 numbers in memory, in the type that is computed in. A GPU's is looked at without one."""
    made = shared_prompt(ROWS)
    width = made.inputs["segments"].shape[1]
    assert width % 16
    seen = model_inputs(made, "sdpa", torch.float32, {})["attention_mask"]
    query = torch.randn(len(seen), 2, width, 8, generator=torch.Generator().manual_seed(1))
    mask = added_once(seen.to("meta"), torch.bfloat16)
    assert mask.dtype == torch.bfloat16
    assert mask.shape == seen.shape
    assert mask.stride()[-2:] == (-(-width // 16) * 16, 1)
    wanted = nn.functional.scaled_dot_product_attention(query, query, query, seen)
    found = nn.functional.scaled_dot_product_attention(query, query, query, added_once(seen, torch.float32))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eager_attention_adds_a_finite_mask_of_the_models_type(dtype: torch.dtype) -> None:
    batch = shared_prompt(ROWS)
    mask = model_inputs(batch, "eager", dtype, {})["attention_mask"]
    assert mask.dtype == dtype
    assert mask.isfinite().all(), "what is not seen is as low as the type goes, not -inf"
    assert torch.equal(mask == 0, sees(batch.inputs["segments"])[:, None])
    assert (mask[mask != 0] == torch.finfo(dtype).min).all()
