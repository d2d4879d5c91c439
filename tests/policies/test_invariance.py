"""A sequence's log-probs are its own: neither chance nor its neighbours in a batch have a part in them."""

import copy
from typing import Any

import pytest
import torch
import transformers
from support.architectures import HEADS, SIZES, row
from transformers import AutoModelForCausalLM

from lightning_bnf.datamodules.steps.layout import PADDED
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.policies.invariance import switch_off_dropout

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


def plain(kind: str, ids: list[int]) -> torch.Tensor:
    """Log-probs of a sequence from its fifth token on, by a model that has seen nothing else."""
    with torch.no_grad():
        logits = of_length(kind)(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
    return logits[torch.arange(3, len(ids) - 1), torch.tensor(ids[4:])]


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
