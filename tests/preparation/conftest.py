"""Tiny random reward models and rankers, saved as a user has them."""

import pytest
import torch
from support.models import tiny_llama_model
from transformers import BertConfig, BertForSequenceClassification, DebertaV2Config, LlamaForSequenceClassification

from lightning_bnf.policies.sources import load_tokenizer
from lightning_bnf.preparation.armorm import ArmoRMModel
from lightning_bnf.preparation.rankers import MARKS, PairRMModel


def tiny_config(tokenizer, **changed):
    config = tiny_llama_model(len(tokenizer)).config
    for name, value in changed.items():
        setattr(config, name, value)
    return config


@pytest.fixture
def reward_folder(tmp_path, tokenizer):
    """Saves a tiny random reward model: a causal one with or without a padding token, or one that reads both ways."""

    def make(kind: str = "causal", labels: dict[int, str] | None = None) -> str:
        torch.manual_seed(3)
        names = (
            {"id2label": labels, "label2id": {name: i for i, name in labels.items()}} if labels else {"num_labels": 1}
        )
        if kind == "bert":
            sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
            config = BertConfig(vocab_size=len(tokenizer), pad_token_id=0, initializer_range=0.3, **sizes, **names)
            model = BertForSequenceClassification(config)
        else:
            pad = {"causal": None, "pad is end": 2, "own pad": 7}[kind]
            model = LlamaForSequenceClassification(tiny_config(tokenizer, pad_token_id=pad, **names))
        model.save_pretrained(tmp_path / kind)
        tokenizer.save_pretrained(tmp_path / kind)
        return str(tmp_path / kind)

    return make


@pytest.fixture
def armorm_folder(tmp_path, tokenizer):
    torch.manual_seed(5)
    config = tiny_config(tokenizer, num_objectives=3, gating_hidden_dim=8, gating_n_hidden=2, gating_temperature=1.5)
    model = ArmoRMModel(config)
    model.reward_transform_matrix.data = torch.tensor([[1.0, 0.0, 0.0], [-0.5, 1.0, 0.2], [0.0, 0.0, 1.0]])
    model.save_pretrained(tmp_path / "armorm")
    tokenizer.save_pretrained(tmp_path / "armorm")
    return str(tmp_path / "armorm")


@pytest.fixture
def pairrm_folder(tmp_path, tokenizer, tiny_folder):
    own = load_tokenizer(tiny_folder)
    own.add_special_tokens({"additional_special_tokens": list(MARKS)})
    marks = own.convert_tokens_to_ids(list(MARKS))
    torch.manual_seed(6)
    config = DebertaV2Config(
        vocab_size=len(own),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        pad_token_id=0,
        initializer_range=0.5,
        n_tasks=2,
        drop_out=0.05,
        source_prefix_id=marks[0],
        cand1_prefix_id=marks[1],
        cand2_prefix_id=marks[2],
    )
    PairRMModel(config).save_pretrained(tmp_path / "pairrm")
    own.save_pretrained(tmp_path / "pairrm")
    return str(tmp_path / "pairrm")
