"""Which reference a policy gets, and that it stays where the policy began."""

import pytest
import torch
from support.policies import lora, moved
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.steps.layout import padded
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.policies import FullPolicy, LoRAPolicy, Policy
from lightning_bnf.policies.reference.build import build_reference, check_reference
from lightning_bnf.policies.reference.providers import AdapterOff, FrozenCopy

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("make", [FullPolicy, LoRAPolicy])
def test_the_reference_stays_where_the_policy_started(
    tiny_folder: str, tokenizer: PreTrainedTokenizerBase, write_pairs: object, make: type[Policy]
) -> None:
    rows, _ = load_rows(write_pairs(), tokenizer)  # type: ignore[operator]
    batch = padded(rows)
    policy = make(tiny_folder)
    policy.load()
    reference = build_reference(check_reference("auto", policy, needed=True), policy)
    assert isinstance(reference, AdapterOff if make is LoRAPolicy else FrozenCopy)
    start = policy(batch).token_logps.detach()
    assert torch.equal(reference(batch), start)
    moved(policy)
    assert not torch.allclose(policy(batch).token_logps, start, atol=1e-3)
    assert torch.equal(reference(batch), start)
    assert not reference(batch).requires_grad
    assert policy.training, "the training mode is put back"
    assert reference.state_dict() == {}


def test_adapter_dropout_is_off_for_the_reference_and_the_base_has_none(
    tiny_folder: str, tokenizer: PreTrainedTokenizerBase, write_pairs: object
) -> None:
    rows, _ = load_rows(write_pairs(), tokenizer)  # type: ignore[operator]
    policy = moved(lora(tiny_folder, dropout=0.5))
    batch = padded(rows)
    assert not torch.equal(policy(batch).token_logps, policy(batch).token_logps), "dropout is on in training"
    reference = build_reference("adapter_off", policy)
    assert reference is not None
    assert torch.equal(reference(batch), reference(batch))
