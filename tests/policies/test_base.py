"""What every policy has in common."""

import pytest
import torch
from support.architectures import policy_of, row

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.steps.layout import PADDED
from lightning_bnf.datamodules.tokens.rows import RowArrays
from lightning_bnf.policies import FullPolicy
from lightning_bnf.policies.base import PolicyError


def test_before_loading_there_is_no_model(tiny_folder: str) -> None:
    with pytest.raises(RuntimeError, match="not loaded yet"):
        _ = FullPolicy(tiny_folder).causal_lm


def two_tokens(seed: int) -> MicroBatch:
    ids = torch.randint(3, 60, (2,), generator=torch.Generator().manual_seed(seed)).tolist()
    return PADDED.batch([RowArrays.of(row("a", ids[:1], (ids[1:], 1)))], (1, -1))


def test_the_head_is_checked_on_sequences_of_two_tokens() -> None:
    """Rounding of two numbers in bfloat16 says little; logits of another size are found all the same."""
    policy = policy_of("Llama")
    policy.to(torch.bfloat16)
    for seed in range(100):
        policy.check_head(two_tokens(seed))
    policy.causal_lm.lm_head.register_forward_hook(lambda module, args, logits: 1.1 * logits)
    with pytest.raises(PolicyError, match=r"differ by .* nats from the model's own logits"):
        policy.check_head(two_tokens(0))
