"""Exported policies, loaded to be looked at."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.models import tiny_llama_model
from transformers import PreTrainedTokenizerBase

from lightning_bnf.policies.base import PolicyError
from lightning_bnf.policies.exported import exported
from lightning_bnf.policies.sources import SourceError

IDS = torch.tensor([[5, 6, 7]])


def test_a_folder_is_loaded_frozen(tiny_folder: str, tokenizer: PreTrainedTokenizerBase) -> None:
    policy = exported(tiny_folder)
    policy.load()
    assert not policy.trainable()
    torch.testing.assert_close(policy.loaded(IDS).logits, tiny_llama_model(len(tokenizer))(IDS).logits)
    with pytest.raises(PolicyError, match="loaded to be looked at"):
        policy.save("anywhere", {}, "5GB")


def test_an_adapter_lies_on_the_base_that_it_names(
    tmp_path: Path, tiny_folder: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    adapted = get_peft_model(
        tiny_llama_model(len(tokenizer)), LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    ).eval()
    adapted.peft_config["default"].base_model_name_or_path = tiny_folder
    adapted.save_pretrained(tmp_path)
    policy = exported(str(tmp_path))
    policy.load()
    assert not policy.trainable()
    torch.testing.assert_close(policy.loaded(IDS).logits, adapted(IDS).logits)
    assert policy.tokenizer.get_vocab() == tokenizer.get_vocab(), "the base's, where the folder holds none"
    held = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(held | {"base_model_name_or_path": None}))
    with pytest.raises(PolicyError, match=r"adapter_config\.json must be one that names a base model, got none"):
        exported(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text(json.dumps(held))
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(PolicyError, match="must be an adapter in safetensors, got no"):
        exported(str(tmp_path))


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(SourceError, match="there is no such folder"):
        exported("./no-such-policy").load()
