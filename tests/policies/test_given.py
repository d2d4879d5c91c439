"""Policies on models that are loaded already: the model itself is trained, and what is no such model is refused."""

import pytest
import torch
from support.models import tiny_llama_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerBase

from lightning_bnf.policies import FullPolicy, LoRAPolicy, QLoRAPolicy
from lightning_bnf.policies.given import source_of
from lightning_bnf.runtime.refusal import Refusal


def test_the_model_itself_is_taken_not_a_copy(tiny_folder: str, tokenizer: PreTrainedTokenizerBase) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    policy = LoRAPolicy.of(model, tokenizer, r=4)
    assert policy.model is None, "nothing is changed before it is loaded"
    assert not any(hasattr(layer, "lora_A") for layer in model.modules())
    policy.load()
    assert policy.causal_lm is model
    assert policy.tokenizer is tokenizer
    assert policy.source == tiny_folder
    assert all("lora_" in name for name in policy.trainable())


def test_what_ends_an_answer_is_the_models(tokenizer: PreTrainedTokenizerBase) -> None:
    model = tiny_llama_model(len(tokenizer))
    model.generation_config.eos_token_id = [2, 7]
    policy = FullPolicy.of(model.to(torch.bfloat16), tokenizer)
    assert policy.end_ids == (2, 7)
    assert policy.dtype == torch.bfloat16
    assert policy.source == source_of(model) == "LlamaForCausalLM"


def test_a_model_with_adapters_is_refused(tiny_folder: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """The second run of a notebook's cell would put adapters onto adapters."""
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    policy = LoRAPolicy.of(model, tokenizer)
    policy.load()
    with pytest.raises(Refusal, match=r"model must be one without adapters, got one with LoRA layers.*unload"):
        LoRAPolicy.of(model, tokenizer)
    with pytest.raises(Refusal, match="model must be a transformers model without adapters around it, got PeftModel"):
        FullPolicy.of(policy.loaded, tokenizer)  # type: ignore[arg-type]
    LoRAPolicy.of(policy.loaded.unload(), tokenizer)  # type: ignore[operator]


def test_weights_are_of_the_policys_kind(tiny_folder: str, tokenizer: PreTrainedTokenizerBase) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder)
    with pytest.raises(Refusal, match="model must be loaded in 4 bits by bitsandbytes with QLoRAPolicy"):
        QLoRAPolicy.of(plain, tokenizer)
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    quantized = AutoModelForCausalLM.from_pretrained(tiny_folder, quantization_config=four)
    for kind in (LoRAPolicy, FullPolicy):
        with pytest.raises(Refusal, match="model must be of 16 or 32 bits, got a quantized one; QLoRAPolicy takes"):
            kind.of(quantized, tokenizer)
    policy = QLoRAPolicy.of(quantized, tokenizer, r=2)
    policy.load()
    assert all("lora_" in name for name in policy.trainable())


@pytest.mark.parametrize("name", ["source", "revision", "dtype", "attention"])
def test_what_the_model_has_is_not_set(tiny_folder: str, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    with pytest.raises(Refusal, match=f"{name} must be left out beside a model that is loaded, which has its own"):
        LoRAPolicy.of(model, tokenizer, **{name: "eager"})


def test_a_folder_that_is_gone_is_no_source(tiny_folder: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    model.name_or_path = "./no/such/folder"
    assert source_of(model) == "LlamaForCausalLM"
