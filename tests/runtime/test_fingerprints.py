"""Fingerprints of weights and tokenizers."""

import copy
import json

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from lightning_bnf.runtime.fingerprints import tokenizer_state, weights_fingerprint


def test_the_fingerprint_tells_weights_apart(tiny_llama):
    before = weights_fingerprint(tiny_llama)
    assert before == weights_fingerprint(tiny_llama)
    weight = tiny_llama.model.norm.weight.data
    weight[0] += 1
    try:
        assert weights_fingerprint(tiny_llama) != before
    finally:
        weight[0] -= 1


def test_the_state_of_a_tokenizer_is_all_of_it_but_how_a_call_cut_and_padded(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    changed = copy.deepcopy(tokenizer)
    before = tokenizer_state(changed)
    changed(["a", "a b"], padding=True, truncation=True, max_length=2)
    assert tokenizer_state(changed) == before
    whole = json.loads(changed.backend_tokenizer.to_str())
    kept = json.loads('{"added_tokens":' + before[1])
    assert kept == {name: part for name, part in whole.items() if name not in ("version", "truncation", "padding")}
    changed.add_tokens([AddedToken("<new>", lstrip=True)])
    assert tokenizer_state(changed)[1] != before[1]


def test_a_tokenizer_written_in_another_order_is_read_whole(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JSON says nothing of an order, a release of tokenizers may write another."""

    class Turned:
        def to_str(self) -> str:
            return '{"model":{"a":1},"truncation":null,"added_tokens":[2],"padding":{"b":3}}'

    monkeypatch.setattr(type(tokenizer), "backend_tokenizer", Turned())
    assert tokenizer_state(tokenizer)[1] == {"model": {"a": 1}, "added_tokens": [2]}
