"""A tiny random model, and a handful of pairs."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel

PAIRS = [
    ("What is 3 + 4?", "7", "The sum is 8."),
    ("Name a colour.", "Blue is a colour.", "Dog"),
    ("Say hello to Ann.", "Hello Ann!", "I will not say hello to anybody today."),
    ("Largest of 2, 9, 4?", "9", "2"),
    ("What is the capital of France?", "Paris", "It is Lyon, of course."),
]


def tiny_llama_model(vocab_size: int, dtype: torch.dtype = torch.float32, **config: int) -> LlamaForCausalLM:
    """A random Llama of two layers; the same weights at every call."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            num_hidden_layers=2,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
            initializer_range=0.2,
            **(sizes | config),
        )
    ).to(dtype)


def tiny_mixture(config_class: type[PreTrainedConfig], vocab_size: int, **config: float) -> PreTrainedModel:
    """A random mixture of four experts, of which a token goes to two; the same weights at every call."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= dict.fromkeys(("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"), 16)
    sizes |= {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
    ids = {"vocab_size": vocab_size, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    made = config_class(**(sizes | ids | {"initializer_range": 0.2} | config))
    model = AutoModelForCausalLM.from_config(made)
    for parameter in model.parameters():
        if not parameter.any():  # Qwen's routers begin at zeros, where experts tie
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def write_pairs_to(path: Path, rows: int, numbers: bool = False) -> str:
    """A JSONL file of conversational pairs, the five again and again; with `numbers`, every completion has all that a
    loss may ask for. Returns its path."""
    with path.open("w") as file:
        for i in range(rows):
            prompt, chosen, rejected = PAIRS[i % len(PAIRS)]
            question = prompt if i < len(PAIRS) else f"{prompt} ({i})"
            row = {
                "prompt": [{"role": "user", "content": question}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
            if numbers:
                row |= {"score_chosen": 1.0 + i, "score_rejected": -0.5 * i}
                row |= {"win_probability_chosen": 0.9, "win_probability_rejected": 0.3}
                row |= {"baseline_mean_logps_chosen": -1.0 - i / 10, "baseline_mean_logps_rejected": -2.0}
            file.write(json.dumps(row) + "\n")
    return str(path)
