"""Tiny random models of many architectures, and rows to lay out for them."""

from typing import Any

import torch
import transformers
from torch import Tensor

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.policies import FullPolicy


def row(name: str, prompt: list[int], *completions: tuple[list[int], int], paired: bool = True) -> TokenizedRow:
    done = tuple(TokenizedCompletion(ids, [True] * len(ids), label) for ids, label in completions)
    return TokenizedRow(name, f"x:{name}", "paired" if paired else "unpaired", prompt, done)


ROWS = [row("a", [5, 6, 7], ([8, 2], 1), ([9, 10, 11, 2], -1)), row("b", [4, 3], ([2], 1), ([12, 2], -1))]


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


def alike_rows() -> list[TokenizedRow]:
    """Of prompts that begin with the same 14 tokens: a pair, a row of one completion, and one of three."""
    ids = torch.randint(3, 60, (4, 60), generator=torch.Generator().manual_seed(2)).tolist()
    common = ids[3][:14]
    return [
        row("a", common + ids[0][:9], (ids[0][20:30], 1), (ids[0][30:50], -1)),
        row("b", common + ids[1][:1], (ids[1][7:20], 1)),
        row("c", common + ids[2][:5], (ids[2][5:7], 1), (ids[2][7:16], -1), (ids[2][16:30], -1)),
    ]


def long_rows() -> list[TokenizedRow]:
    ids = torch.randint(3, 60, (2, 60), generator=torch.Generator().manual_seed(1)).tolist()
    return [
        row("a", ids[0][:20], (ids[0][20:30], 1), (ids[0][30:55], -1)),
        row("b", ids[1][:5], (ids[1][5:7], 1), (ids[1][7:20], -1)),
    ]
