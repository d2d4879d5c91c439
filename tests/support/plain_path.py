"""The slow, obviously right way from a micro-batch to token log-probs: all logits, and autograd."""

import torch

from lightning_bnf.batch import MicroBatch
from lightning_bnf.losses.base import Weigher
from lightning_bnf.policies import LoRAPolicy, PolicyOutput


class PlainLoRAPolicy(LoRAPolicy):
    """LoRA with the model's own logits over the whole vocabulary; a token loss's objective is left to autograd."""

    def forward(self, batch: MicroBatch, weigh: Weigher | None = None, entropy: bool = False) -> PolicyOutput:
        logits = self.causal_lm(**self.model_inputs(batch), use_cache=False).logits.flatten(0, 1)[batch.position]
        logps = logits.float().log_softmax(-1)[torch.arange(len(batch.target)), batch.target]
        if weigh is None:
            return PolicyOutput(logps)
        weights = weigh(logps.detach(), slice(0, len(logps)))
        return PolicyOutput(logps.detach(), -(weights * logps).sum())
