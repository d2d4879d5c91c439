"""What each way of attention is told of packed sequences and shared prompts."""

from functools import partial
from math import inf
from typing import Any

import pytest
import torch
import transformers
from support.architectures import (
    ARCHITECTURES,
    ROWS,
    alike_rows,
    assert_alike,
    gradients,
    long_rows,
    policy_of,
)
from support.attention import flash_by_hand
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, create_mask
from transformers.masking_utils import flash_attention_mask

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.layout import packed, packed_shared, padded, shared_prompt, tokens_in_common
from lightning_bnf.policies.attention import added_once, model_inputs, sees
from lightning_bnf.training.fitting import preferred_layouts

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("layout", "made"),
    [
        (packed, long_rows),
        (shared_prompt, long_rows),
        (packed_shared, long_rows),
        (partial(packed_shared, common=14), alike_rows),
    ],
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_flash_attention_is_told_where_sequences_end(
    architecture: str, layout: Any, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels need a GPU; here a function of the same arguments stands for them."""
    monkeypatch.setitem(transformers.AttentionInterface._global_mapping, "flash_by_hand", flash_by_hand)
    monkeypatch.setitem(transformers.AttentionMaskInterface._global_mapping, "flash_by_hand", flash_attention_mask)
    policy, rows = policy_of(architecture), made()
    wanted = gradients(policy, padded(rows))
    policy.causal_lm.config._attn_implementation = "flash_by_hand"
    found = gradients(policy, layout(rows))
    assert_alike(found, wanted)


@pytest.mark.parametrize("made", [long_rows, alike_rows])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_flex_attention_takes_shared_prompts_in_blocks(architecture: str, made: Any) -> None:
    """Log-probs alone, and uncompiled: on the CPU it has no backward pass."""
    policy, rows = policy_of(architecture), made()
    wanted = policy(padded(rows)).token_logps.detach()
    if not policy.causal_lm._supports_flex_attn:
        with pytest.raises(ValueError, match=r"does not support .*flex"):
            policy.causal_lm.set_attn_implementation("flex_attention")
        return
    policy.causal_lm.set_attn_implementation("flex_attention")
    assert isinstance(policy.model_inputs(shared_prompt(rows))["attention_mask"], BlockMask)
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        common = tokens_in_common(rows)
        assert common == (14 if made is alike_rows else 0)
        for layout in (shared_prompt, partial(packed_shared, common=common), packed):
            torch.testing.assert_close(policy(layout(rows)).token_logps, wanted, rtol=0, atol=1e-5)


def test_blocks_are_those_of_the_mask() -> None:
    batch = shared_prompt(long_rows())
    segments = batch.inputs["segments"]
    blocks = model_inputs(batch, "flex_attention", torch.float32, {})["attention_mask"]
    rows, heads, width = 2, 1, segments.shape[1]
    made = create_mask(blocks.mask_mod, rows, heads, width, width, "cpu")
    assert torch.equal(made[:, 0], sees(segments))


def test_blocks_and_masks_tell_documents_apart() -> None:
    """A pair in tokens 0 to 8 and another in 9 to 13, of one row: the same tokens see each other as in two rows."""
    one, two = packed_shared(ROWS).inputs, shared_prompt(ROWS).inputs
    seen = sees(one["segments"], documents=one["documents"])[0]
    apart = sees(two["segments"])
    assert torch.equal(seen, torch.block_diag(apart[0], apart[1, :5, :5]).bool())
    blocks = model_inputs(packed_shared(ROWS), "flex_attention", torch.float32, {})["attention_mask"]
    assert torch.equal(create_mask(blocks.mask_mod, 1, 1, 14, 14, "cpu")[0, 0], seen)


def test_all_documents_see_what_their_prompts_begin_with() -> None:
    """Each token sees as many as it does alone, and none of another row."""
    batch = packed_shared(alike_rows(), common=14)
    seen = sees(batch.inputs["segments"], documents=batch.inputs["documents"])[0]
    assert (
        batch.inputs["input_ids"].numel()
        == sum(len(row.prompt_ids) + sum(len(one.ids) for one in row.completions) for row in alike_rows()) - 2 * 14
    )
    assert torch.equal(seen.sum(1), batch.inputs["position_ids"][0] + 1)
    owner = batch.inputs["documents"][0]
    assert not seen[(owner[:, None] != owner) & (owner != -1)].any()


@pytest.mark.parametrize(("labels", "reach"), [((1,), inf), ((1, -1), inf), ((1,), 0)])
def test_single_completions_are_packed_where_their_prompts_begin_alike(labels: tuple[int, ...], reach: float) -> None:
    rows = alike_rows()
    sharing = preferred_layouts("auto", "sdpa", rows, labels, reach)[0] == "packed_shared"
    assert sharing == (reach > 0)
    assert preferred_layouts("auto", "sdpa", long_rows(), (1,), inf) == ["padded"]
    assert preferred_layouts("packed_shared", "sdpa", rows, (1,), 0) == ["packed"]


@pytest.mark.parametrize("attention", ["flash_attention_2", "kernels-community/flash-attn2"])
def test_flash_attention_shares_prompts_where_a_model_hands_sequences_down(attention: str) -> None:
    """Its kernels take no mask of who sees whom, so with another model `auto` packs."""
    assert preferred_layouts("auto", attention, long_rows(), (1, -1), inf) == ["packed_shared", "shared_prompt"]
    assert preferred_layouts("auto", attention, long_rows(), (1,), inf) == ["packed"]
    assert preferred_layouts("auto", attention, long_rows(), (1, -1), 0) == ["packed"]
    with pytest.raises(DataError, match=rf"with attention {attention} .* got 'shared_prompt'"):
        preferred_layouts("shared_prompt", attention, long_rows(), (1, -1), 0)


def test_prompts_are_shared_in_one_row_where_no_mask_is_needed() -> None:
    """Of sequences of up to 45 tokens: masks of a packed row would grow with its square."""
    for reach, wanted in ((inf, "packed_shared"), (45, "packed_shared"), (44, "shared_prompt"), (0, "shared_prompt")):
        assert preferred_layouts("auto", "sdpa", long_rows(), (1, -1), reach)[0] == wanted
    assert preferred_layouts("packed_shared", "sdpa", long_rows(), (1,), 0) == ["packed"]


def test_padding_is_not_told_where_kernels_skip_more_without() -> None:
    """It lies behind all other tokens, who do not see it."""
    batch = padded(ROWS)
    assert set(model_inputs(batch, "sdpa", torch.float32, {}, kernel="merged")) == {"input_ids"}
    assert set(model_inputs(batch, "eager", torch.float32, {})) == {"input_ids", "attention_mask"}


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
