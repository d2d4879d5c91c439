"""Tiny models of architectures: small, random alike, and with what may go wrong in them."""

import torch

from lightning_bnf.training.architectures.tiny import WINDOW, architectures, tiny_model


def test_every_causal_language_model_of_transformers_is_named() -> None:
    found = architectures()
    assert len(found) > 150
    assert {"llama", "gemma3_text", "mamba", "opt", "phimoe"} <= set(found)
    assert found == sorted(found)


def test_a_tiny_model_is_the_same_at_every_call() -> None:
    one, other = tiny_model("llama"), tiny_model("llama")
    assert sum(parameter.numel() for parameter in one.parameters()) < 50_000
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_windows_kinds_of_layers_and_dropout_are_in_it() -> None:
    """By default Gemma-3 has 26 layers, every sixth of which sees everything, and OPT's attention no dropout."""
    config = tiny_model("gemma3_text").config
    assert config.sliding_window == WINDOW
    assert set(config.layer_types) == {"sliding_attention", "full_attention"}
    assert len(config.layer_types) == config.num_hidden_layers == 2
    assert tiny_model("opt").config.attention_dropout == 0.1
