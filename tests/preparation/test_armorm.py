"""ArmoRM as its equations say."""

import pytest
import torch
from support.scoring import GROUPS
from transformers import LlamaModel

from lightning_bnf.preparation import ArmoRM
from lightning_bnf.preparation.armorm import Gate


def test_the_gate_by_hand():
    """Weights 1: hidden (1, -3) -> relu(-2) = 0 twice -> logits (0, 1) by the bias -> softmax at temperature 2, x 3.

    softmax(0, 1/2) = (1, e^0.5) / (1 + e^0.5) = (0.37754, 0.62246).
    """
    gate = Gate(hidden=2, width=2, depth=1, objectives=2, temperature=2.0)
    for layer in gate.layers:
        torch.nn.init.ones_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    gate.layers[-1].bias.data[1] = 1.0
    gate.logit_scale.data[0] = 3.0
    found = gate(torch.tensor([[1.0, -3.0]]))
    assert found[0].tolist() == pytest.approx([3 * 0.37754, 3 * 0.62246], abs=1e-4)


def test_armorm_scores_as_its_equations_say(armorm_folder, tokenizer, tmp_path):
    """One conversation at a time: rewards at the last token, the gate at the prompt's, sum of their products."""
    scorer = ArmoRM(armorm_folder, max_tokens=100)
    found = scorer.score(GROUPS, tmp_path / "work.jsonl")
    whole = scorer.load_model()
    body = LlamaModel(whole.config)
    body.load_state_dict(whole.model.state_dict())
    body.eval()
    for group, scores in zip(GROUPS, found, strict=True):
        for text, score in zip(group.completions, scores, strict=True):
            said = [*group.prompt, {"role": "assistant", "content": text}]
            ids = tokenizer(tokenizer.apply_chat_template(said, tokenize=False))["input_ids"]
            asked = tokenizer(tokenizer.apply_chat_template(list(group.prompt), tokenize=False))["input_ids"]
            with torch.no_grad():
                hidden = body(torch.tensor([ids])).last_hidden_state[0]
                rewards = whole.regression_layer.weight @ hidden[-1]
                adjusted = whole.reward_transform_matrix.T @ rewards
                weights = whole.gating(hidden[len(asked) - 1][None])[0]
            assert score == pytest.approx(float(weights @ adjusted), abs=1e-5)
