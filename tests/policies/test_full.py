"""Full policies: everything is trained and saved."""

from pathlib import Path

import torch
from support.policies import moved, save
from transformers import AutoModelForCausalLM

from lightning_bnf.policies import FullPolicy


def test_full_trains_everything(tiny_folder: str) -> None:
    policy = FullPolicy(tiny_folder)
    policy.load()
    assert all(parameter.requires_grad for parameter in policy.parameters())
    assert len(policy.state_dict()) == len(policy.trainable())


def test_a_saved_full_policy_gives_its_logits(tmp_path: Path, tiny_folder: str) -> None:
    policy = FullPolicy(tiny_folder)
    policy.load()
    save(moved(policy), tmp_path)
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits
        torch.testing.assert_close(again, policy.loaded(ids).logits, rtol=0, atol=1e-6)
