"""A tiny random model, and a handful of pairs."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

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
