"""A sequence's log-probs are its own: neither chance nor its neighbours in a batch have a part in them."""

import copy
from typing import Any

import pytest
import torch
import transformers
from support.architectures import HEADS, SIZES, policy_of, row
from transformers import AutoModelForCausalLM

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.layout import PADDED
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.policies.invariance import rotated_alike, switch_off_dropout
from lightning_bnf.training.fitting import choose_layout

IDS = torch.randint(3, 60, (60,), generator=torch.Generator().manual_seed(1)).tolist()
LONG, SHORT, MIDDLE = (row(name, IDS[:4], (IDS[4:end], 1)) for name, end in (("long", 60), ("short", 12), ("mid", 40)))


def of_length(kind: str) -> Any:
    """A tiny model whose RoPE changes beyond 16 tokens."""
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "original_max_position_embeddings": 16}
        rope.pop("factor")
    name = "Phi3" if kind == "longrope" else "Llama"
    sizes = SIZES | HEADS | {"initializer_range": 0.3, "max_position_embeddings": 64 if kind == "longrope" else 16}
    sizes |= {"original_max_position_embeddings": 16} if kind == "longrope" else {}
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**sizes, rope_parameters=rope)
    return AutoModelForCausalLM.from_config(config).eval()


def plain(kind: str, ids: list[int], first: int = 4) -> torch.Tensor:
    """Log-probs of a sequence's tokens from place `first` on, by a model that has seen nothing else."""
    with torch.no_grad():
        logits = of_length(kind)(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
    return logits[torch.arange(first - 1, len(ids) - 1), torch.tensor(ids[first:])]


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
@pytest.mark.parametrize("rows", [(SHORT, LONG), (LONG, SHORT), (LONG, MIDDLE, SHORT)], ids=len)
def test_the_longest_row_of_a_batch_does_not_choose_the_frequencies_of_others(kind: str, rows: Any) -> None:
    right = torch.cat([plain(kind, one.prompt_ids + one.completions[0].ids) for one in rows])
    policy = FullPolicy("tiny")
    policy.adopt(of_length(kind))
    found = policy(PADDED.batch(rows, (1,))).token_logps
    torch.testing.assert_close(found.detach(), right, rtol=0, atol=2e-5)
    other = copy.deepcopy(policy)
    assert torch.equal(other(PADDED.batch(rows, (1,))).token_logps, found)
    assert other.causal_lm.base_model.rotary_emb.forward.__self__ is other.causal_lm.base_model.rotary_emb  # type: ignore[union-attr]
    blind = FullPolicy("tiny")
    blind.model = of_length(kind)
    off = (blind(PADDED.batch(rows, (1,))).token_logps - right).abs().max()
    assert off > 0.1, "or there is nothing to test"


@pytest.mark.parametrize(
    ("kind", "alike", "other"),
    [
        ("longrope", [(2, 16), (17, 60), (5, 5)], [(16, 17), (2, 60)]),
        ("dynamic", [(2, 16), (30, 30)], [(16, 17), (17, 60), (2, 60)]),
    ],
)
def test_lengths_between_which_frequencies_change(
    kind: str, alike: list[tuple[int, int]], other: list[tuple[int, int]]
) -> None:
    policy = FullPolicy("tiny")
    policy.adopt(of_length(kind))
    assert [rotated_alike(policy.causal_lm, *lengths) for lengths in alike] == [True] * len(alike)
    assert [rotated_alike(policy.causal_lm, *lengths) for lengths in other] == [False] * len(other)
    unscaled = policy_of("Llama")
    assert rotated_alike(unscaled.causal_lm, 2, 10**6)


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_prompts_are_shared_where_all_sequences_are_encoded_alike(kind: str) -> None:
    """The pair in the middle has an answer on either side of 16 tokens; shortest and longest row lie on one each."""
    below, longest = (row(n, IDS[:4], (IDS[4:end], 1), (IDS[5:end], -1)) for n, end in (("below", 8), ("longest", 60)))
    straddling = row("straddling", IDS[:10], (IDS[10:12], 1), (IDS[11:40], -1))
    policy = FullPolicy("tiny")
    policy.adopt(of_length(kind))
    few = [below, row("more", IDS[:5], (IDS[5:12], 1), (IDS[6:16], -1))]
    assert choose_layout("auto", policy, few, (1, -1)).name == "packed_shared"
    rows = [below, straddling, longest]
    layout = choose_layout("auto", policy, rows, (1, -1))
    assert layout is PADDED
    right = [plain(kind, one.prompt_ids + done.ids, len(one.prompt_ids)) for one in rows for done in one.completions]
    found = policy(layout.batch(rows, (1, -1))).token_logps
    torch.testing.assert_close(found.detach(), torch.cat(right), rtol=0, atol=2e-5)
    for name in ("shared_prompt", "packed"):
        with pytest.raises(DataError, match=f"layout must be 'padded' for this model, got '{name}': its RoPE scaling"):
            choose_layout(name, policy, rows, (1, -1))  # type: ignore[arg-type]


def test_dropout_is_taken_out_and_thresholds_stay() -> None:
    class Layer(transformers.modeling_layers.GradientCheckpointingLayer):
        def __init__(self) -> None:
            super().__init__()
            self.dropout, self.resid_pdrop, self.router_jitter_noise = 0.1, 0.2, 0.3
            self.inner = torch.nn.Dropout(0.4)

    layer = Layer()
    switch_off_dropout(layer)
    assert (layer.dropout, layer.resid_pdrop, layer.router_jitter_noise, layer.inner.p) == (0.0, 0.0, 0.3, 0.0)


def test_of_a_policy_in_training_adapters_alone_are_in_training_mode(tiny_folder: str) -> None:
    policy = LoRAPolicy(tiny_folder, r=2, dropout=0.5)
    policy.load()
    assert policy.train() is policy
    modes = {name: part.training for name, part in policy.causal_lm.named_modules()}
    assert not any(mode for name, mode in modes.items() if name.endswith(("base_layer", "layernorm", "mlp")))
    assert all(mode for name, mode in modes.items() if "lora_dropout" in name and "." in name)
    assert not any(part.training for part in policy.eval().modules())
    recomputed = FullPolicy(tiny_folder, gradient_checkpointing=True)
    recomputed.load()
    kinds = {type(part).__name__ for part in recomputed.causal_lm.modules() if part.training}
    assert "LlamaDecoderLayer" in kinds
    assert not kinds & {"LlamaAttention", "LlamaMLP", "Linear"}
