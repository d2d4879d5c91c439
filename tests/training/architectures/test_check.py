"""Every causal language model of the installed transformers: its own plain numbers in the layouts that are accepted, or
a sentence. All of them with ALL_ARCHITECTURES=1 (some minutes); else those that were trouble, and a few at random."""

import os
import random

import pytest
import torch

from lightning_bnf.policies.head.tiles import Head
from lightning_bnf.training.architectures import check as checking
from lightning_bnf.training.architectures.check import WrongError, check
from lightning_bnf.training.architectures.table import Architecture, read_table
from lightning_bnf.training.architectures.tiny import architectures, tiny_model

pytestmark = pytest.mark.slow

TROUBLE = ("bloom", "falcon", "gemma3_text", "gemma3n_text", "llama4_text", "mamba", "mistral", "mixtral", "openai-gpt")
TROUBLE += ("opt", "phimoe")
TRIED = architectures() if os.environ.get("ALL_ARCHITECTURES") else sorted({*TROUBLE, "llama"})


@pytest.mark.parametrize("name", TRIED)
def test_an_architecture_is_trained_rightly_or_refused_with_a_sentence(name: str) -> None:
    """`check` itself raises where a layout is accepted that gives other numbers than the model's own."""
    stored = {row.name: row for row in read_table().rows}
    found = check(name)
    assert found.layouts or found.said, "refused without a word"
    assert "shared_prompt" in found.layouts or found.said, "fell back without a word"
    assert (found.name, found.layouts) == (stored[name].name, stored[name].layouts), found.said


def test_a_few_at_random_are_as_the_table_says() -> None:
    """Of those that could be built; drawn anew by the hour of no clock: the seed is the number of architectures."""
    stored = {row.name: row for row in read_table().rows if row.layouts}
    for name in random.Random(len(stored)).sample(sorted(stored), 4):
        assert check(name).layouts == stored[name].layouts


def test_wrong_numbers_that_are_accepted_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "choose_layout", lambda *_: None)
    with pytest.raises(WrongError, match="llama4_text, shared_prompt: log-probs differ by"):
        check("llama4_text")


def test_a_head_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits twice as large as the head thinks."""
    plain = tiny_model("llama")
    monkeypatch.setattr(checking.FullPolicy, "head", lambda policy: Head(policy.causal_lm.lm_head.weight, scale=2.0))
    found = check("llama")
    assert found.layouts == ()
    assert "differ by" in found.said
    assert torch.isfinite(plain.lm_head.weight).all()
    assert isinstance(found, Architecture)
