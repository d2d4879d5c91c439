"""ArmoRM (Wang et al. 2024, arXiv 2406.12845): the reward model of the BNF paper's Llama-3 and Gemma-2 data.

The hub's RLHFlow/ArmoRM-Llama3-8B-v0.1 comes with code of its own, which is never run here; this is the paper's model
written down again, and it reads that checkpoint's weights:

    r  = regression_layer(h_last)                    one reward per objective, at the conversation's last token
    g  = softmax(MLP(h_prompt) / temperature)        how much each counts, decided at the prompt's last token
    score = logit_scale * sum_k g_k (r W)_k          W = reward_transform_matrix takes verbosity out of the rewards
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaModel, LlamaPreTrainedModel, PreTrainedModel

from lightning_bnf.preparation.reward_models import RewardModel, load_whole
from lightning_bnf.preparation.scoring import Entry, right_padded


class ArmoRM(RewardModel):
    """RLHFlow/ArmoRM-Llama3-8B-v0.1 and models of the same layout; `label` stays null, since there is one score."""

    def load_model(self) -> PreTrainedModel:
        return load_whole(ArmoRMModel, self.source, self.revision, self.dtype)

    def head(self, model: PreTrainedModel) -> int:
        return 0

    def outputs(self, model: PreTrainedModel, batch: list[Entry], own_pad: int | None) -> Tensor:
        ids, mask = right_padded(batch, own_pad or 0, model.device)
        prompt_end = torch.tensor([entry.prompt_length - 1 for entry in batch], device=model.device)
        return model(ids, mask, prompt_end)[:, None]


class ArmoRMModel(LlamaPreTrainedModel):
    """A Llama body with a row of rewards and a gate that weighs them. Its names are those of the checkpoint."""

    def __init__(self, config: Any):
        super().__init__(config)
        objectives = getattr(config, "num_objectives", 19)
        self.model = LlamaModel(config)
        self.regression_layer = nn.Linear(config.hidden_size, objectives, bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.zeros(objectives, objectives), requires_grad=False)
        self.gating = Gate(
            config.hidden_size,
            getattr(config, "gating_hidden_dim", 1024),
            getattr(config, "gating_n_hidden", 3),
            objectives,
            getattr(config, "gating_temperature", 10),
        )
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, prompt_end: Tensor) -> Tensor:
        """Scores (B,) of `input_ids` (B, T), padded on the right; `prompt_end` (B,) is each prompt's last position."""
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        rows = torch.arange(len(hidden), device=hidden.device)
        rewards = self.regression_layer(hidden[rows, attention_mask.sum(dim=1) - 1])  # (B, objectives)
        return (self.gating(hidden[rows, prompt_end]) * (rewards @ self.reward_transform_matrix)).sum(dim=1)


class Gate(nn.Module):
    """An MLP with ReLU whose softmax, scaled, is the weight of each objective."""

    def __init__(self, hidden: int, width: int, depth: int, objectives: int, temperature: float):
        super().__init__()
        sizes = [hidden, *[width] * depth, objectives]
        self.layers = nn.ModuleList(nn.Linear(size, to) for size, to in pairwise(sizes))
        self.logit_scale = nn.Parameter(torch.ones(1))
        self.temperature = temperature

    def forward(self, prompt: Tensor) -> Tensor:
        """Weights (B, objectives) from the prompts' hidden states (B, hidden)."""
        *inner, last = self.layers
        for layer in inner:
            prompt = torch.relu(layer(prompt))
        return torch.softmax(last(prompt) / self.temperature, dim=1) * self.logit_scale
