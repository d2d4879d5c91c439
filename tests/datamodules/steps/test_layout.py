"""The layouts against one sequence at a time, and where their tokens lie."""

from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from support import oracles
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_mask
from transformers import LlamaForCausalLM
from transformers.masking_utils import flash_attention_mask

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.layout import PACKED, PADDED, SHARED_PROMPT, Layout, packed, padded, shared_prompt
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.policies import FullPolicy
from lightning_bnf.policies.attention import model_inputs, sees
from lightning_bnf.training.fitting import choose_layout, preferred_layout


def row(name: str, prompt: list[int], *completions: tuple[list[int], int], paired: bool = True) -> TokenizedRow:
    done = tuple(TokenizedCompletion(ids, [True] * len(ids), label) for ids, label in completions)
    return TokenizedRow(name, f"x:{name}", "paired" if paired else "unpaired", prompt, done)


ROWS = [row("a", [5, 6, 7], ([8, 2], 1), ([9, 10, 11, 2], -1)), row("b", [4, 3], ([2], 1), ([12, 2], -1))]


def test_positions_targets_and_owners_by_hand() -> None:
    """Width 7 (3 + 4). Completion 0 is predicted from positions 2, 3 of row 0; completion 1 from 2..5 of row 1, ..."""
    batch = padded(ROWS)
    assert batch.inputs["input_ids"].shape == (4, 7)
    assert batch.inputs["attention_mask"].sum(-1).tolist() == [5, 7, 3, 4]
    assert batch.position.tolist() == [2, 3, 9, 10, 11, 12, 15, 22, 23]
    assert batch.target.tolist() == [8, 2, 9, 10, 11, 2, 2, 12, 2]
    assert batch.completion.tolist() == [0, 0, 1, 1, 1, 1, 2, 3, 3]
    assert batch.length.tolist() == [2, 4, 1, 2]
    assert batch.examples.label.tolist() == [1, -1, 1, -1]
    assert batch.examples.pair is not None
    assert batch.examples.pair.tolist() == [[0, 1], [2, 3]]
    assert batch.row_ids == ("a", "a", "b", "b")


def test_untrained_tokens_are_in_the_input_and_nowhere_else() -> None:
    masked = TokenizedRow("c", "x", "demonstration", [4], (TokenizedCompletion([5, 6, 7], [True, False, True], 1),))
    batch = padded([masked])
    assert batch.inputs["input_ids"].tolist() == [[4, 5, 6, 7]]
    assert batch.target.tolist() == [5, 7]
    assert batch.position.tolist() == [0, 2]
    assert batch.length.tolist() == [2]
    assert batch.examples.pair is None


def test_labels_that_are_not_learned_from_are_left_out() -> None:
    batch = padded(ROWS, labels=(1,))
    assert batch.examples.label.tolist() == [1, 1]
    assert batch.examples.pair is None


def test_a_shared_prompt_stands_once_by_hand() -> None:
    """Row a: prompt 5 6 7, then 8 2, then 9 10 11 2. Both first tokens are predicted by the prompt's last one."""
    batch = shared_prompt(ROWS)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 2, 9, 10, 11, 2], [4, 3, 2, 12, 2, 0, 0, 0, 0]]
    assert batch.inputs["position_ids"][0].tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 6]
    assert batch.inputs["position_ids"][1, :5].tolist() == [0, 1, 2, 2, 3]
    assert batch.position.tolist() == [2, 3, 2, 5, 6, 7, 10, 10, 12]
    assert batch.target.tolist() == padded(ROWS).target.tolist()
    assert batch.completion.tolist() == padded(ROWS).completion.tolist()
    assert batch.examples.pair is not None
    assert batch.examples.pair.tolist() == [[0, 1], [2, 3]]
    assert batch.inputs["segments"].tolist() == [[0, 0, 0, 1, 1, 2, 2, 2, 2], [0, 0, 1, 2, 2, -1, -1, -1, -1]]
    seen = sees(batch.inputs["segments"])
    assert seen[0, 4].nonzero().flatten().tolist() == [0, 1, 2, 3, 4], "the first completion sees prompt and itself"
    assert seen[0, 6].nonzero().flatten().tolist() == [0, 1, 2, 5, 6], "the second does not see the first"
    assert seen[0, 1].nonzero().flatten().tolist() == [0, 1], "the prompt sees no completion"
    assert seen[1, 7].nonzero().flatten().tolist() == [7], "padding sees itself alone"


def test_packed_sequences_stand_one_behind_the_other_by_hand() -> None:
    """5 6 7 8 2 | 5 6 7 9 10 11 2 | 4 3 2 | 4 3 12 2: 19 tokens in one row, positions from 0 in each."""
    batch = packed(ROWS)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 2, 5, 6, 7, 9, 10, 11, 2, 4, 3, 2, 4, 3, 12, 2]]
    assert batch.inputs["position_ids"].tolist() == [[*range(5), *range(7), *range(3), *range(4)]]
    assert set(batch.inputs) == {"input_ids", "position_ids"}, "a mask would hide the sequences' ends from the model"
    assert batch.position.tolist() == [2, 3, 7, 8, 9, 10, 13, 16, 17]
    assert batch.target.tolist() == padded(ROWS).target.tolist()
    assert batch.examples.pair is not None
    assert batch.examples.pair.tolist() == [[0, 1], [2, 3]]
    assert packed(ROWS[:0]).inputs["input_ids"].shape == (1, 1)


@pytest.mark.parametrize("layout", [PADDED, SHARED_PROMPT])
@pytest.mark.parametrize("labels", [(1, -1), (1,), (-1,)])
def test_lengths_are_those_of_the_model_rows(layout: Layout, labels: tuple[int, ...]) -> None:
    wanted = [n for r in ROWS for n in layout.lengths(r, labels)]
    inputs = layout.batch(ROWS, labels).inputs
    assert len(inputs["input_ids"]) == len(wanted)
    assert inputs["input_ids"].shape[1] == max(wanted)


def test_log_probs_equal_those_of_each_sequence_alone(tiny_llama: LlamaForCausalLM) -> None:
    batch = padded(ROWS)
    with torch.no_grad():
        logits = tiny_llama(**batch.inputs, use_cache=False).logits.flatten(0, 1).double().log_softmax(-1)
        ours = logits[batch.position, batch.target]
        alone = [
            oracles.full_token_logps(tiny_llama, r.prompt_ids + c.ids, len(r.prompt_ids))
            for r in ROWS
            for c in r.completions
        ]
    torch.testing.assert_close(ours, torch.cat(alone), rtol=0, atol=1e-5)


SIZES = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": None},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "Gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "Gemma3Text": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "Phi3": {},
    "Olmo2": {},
    "Cohere": {},
    "Granite": {"logits_scaling": 4.0},
    "GPTNeoX": {},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
}


def policy_of(architecture: str, **changes: Any) -> FullPolicy:
    """A policy around a tiny random model of an architecture."""
    torch.manual_seed(0)
    sizes = SIZES | HEADS | {"initializer_range": 0.3} | ARCHITECTURES[architecture] | changes
    config = getattr(transformers, f"{architecture}Config")(**sizes)
    policy = FullPolicy("tiny")
    policy.model = transformers.AutoModelForCausalLM.from_config(config).eval()
    return policy


Results = tuple[Tensor, dict[str, Tensor | None]]


def gradients(policy: FullPolicy, batch: MicroBatch) -> Results:
    """Token log-probs, and the gradient of their sum."""
    policy.zero_grad()
    logps = policy(batch).token_logps
    logps.sum().backward()
    return logps.detach(), {name: p.grad for name, p in policy.trainable().items()}


def assert_alike(found: Results, wanted: Results) -> None:
    """Log-probs to 1e-5 nats, gradients to 1e-4 of the largest."""
    torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=1e-5)
    scale = max(float(grad.abs().max()) for grad in wanted[1].values() if grad is not None)
    for name, grad in wanted[1].items():
        other = found[1][name]
        assert (grad is None) == (other is None)
        if grad is not None and other is not None:
            torch.testing.assert_close(other, grad, rtol=0, atol=1e-4 * scale)


def long_rows() -> list[TokenizedRow]:
    ids = torch.randint(3, 60, (2, 60), generator=torch.Generator().manual_seed(1)).tolist()
    return [
        row("a", ids[0][:20], (ids[0][20:30], 1), (ids[0][30:55], -1)),
        row("b", ids[1][:5], (ids[1][5:7], 1), (ids[1][7:20], -1)),
    ]


@pytest.mark.parametrize("layout", [PACKED, SHARED_PROMPT], ids=["packed", "shared_prompt"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_layouts_give_the_same_log_probs_and_gradients(architecture: str, layout: Layout) -> None:
    """For an architecture where they did not, `auto` would have to fall back: here none of them has to."""
    policy, rows = policy_of(architecture), long_rows()
    for some in (padded, packed, shared_prompt):
        policy.check_head(some(rows))
    assert_alike(gradients(policy, layout.batch(rows, (1, -1))), gradients(policy, padded(rows)))


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
    blocks = model_inputs(batch, "flex_attention", torch.float32)["attention_mask"]
    rows, heads, width = 2, 1, segments.shape[1]
    made = create_mask(blocks.mask_mod, rows, heads, width, width, "cpu")
    assert torch.equal(made[:, 0], sees(segments))


@pytest.mark.parametrize("attention", ["flash_attention_2", "kernels-community/flash-attn2"])
def test_flash_attention_cannot_share_prompts(attention: str) -> None:
    """Its kernels take no mask of who sees whom, so `auto` packs."""
    assert preferred_layout("auto", attention, long_rows(), (1, -1)) == "packed"
    with pytest.raises(DataError, match=rf"layout 'shared_prompt': {attention} takes no mask"):
        preferred_layout("shared_prompt", attention, long_rows(), (1, -1))


def test_flash_attention_refuses_float32() -> None:
    with pytest.raises(ValueError, match=r"attention 'flash_attention_2' with dtype float32.*accepted is bfloat16"):
        FullPolicy("tiny", attention="flash_attention_2")
    assert FullPolicy("tiny", attention="flash_attention_2", dtype="bfloat16").attention == "flash_attention_2"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eager_attention_adds_a_finite_mask_of_the_models_type(dtype: torch.dtype) -> None:
    batch = shared_prompt(ROWS)
    mask = model_inputs(batch, "eager", dtype)["attention_mask"]
    assert mask.dtype == dtype
    assert mask.isfinite().all(), "what is not seen is as low as the type goes, not -inf"
    assert torch.equal(mask == 0, sees(batch.inputs["segments"])[:, None])
    assert (mask[mask != 0] == torch.finfo(dtype).min).all()


def test_a_window_shorter_than_a_row_is_found_out() -> None:
    """A mask of who sees whom replaces the model's own sliding window: wrong in silence, were it not measured."""
    policy = policy_of("Mistral", sliding_window=8)
    assert policy.distance(padded(long_rows()), shared_prompt(long_rows())) > 10 * policy.tolerance


@pytest.mark.parametrize("layout", ["auto", "shared_prompt"])
def test_a_layout_that_changes_the_numbers_falls_back_or_is_refused(layout: Any) -> None:
    policy = policy_of("Mistral", sliding_window=8)
    if layout == "auto":
        assert choose_layout(layout, policy, long_rows(), (1, -1)) is PADDED
    else:
        with pytest.raises(DataError, match=r"layout 'shared_prompt': this model's log-probs differ by"):
            choose_layout(layout, policy, long_rows(), (1, -1))
    policy.model = policy_of("Llama").model
    assert choose_layout(layout, policy, long_rows(), (1, -1)) is SHARED_PROMPT
    assert choose_layout(layout, policy, long_rows(), (1,)) is PADDED, "one completion a row has nothing to share"


@pytest.mark.parametrize("layout", [padded, shared_prompt])
def test_an_empty_micro_batch_still_feeds_the_model_one_token(layout: Any) -> None:
    batch = layout([])
    assert batch.inputs["input_ids"].shape == (1, 1)
    if layout is padded:
        assert batch.inputs["attention_mask"].flatten().tolist() == [1]
    else:
        assert sees(batch.inputs["segments"]).flatten().tolist() == [True]
    assert len(batch.position) == len(batch.length) == 0
    assert batch.examples.pair is not None
    assert batch.examples.pair.shape == (0, 2)


def test_to_moves_every_tensor() -> None:
    moved = padded(ROWS).to("meta")
    tensors = [
        *moved.inputs.values(),
        moved.position,
        moved.target,
        moved.completion,
        moved.length,
        moved.examples.label,
    ]
    assert all(tensor.device.type == "meta" for tensor in [*tensors, moved.examples.pair])  # type: ignore[union-attr]
