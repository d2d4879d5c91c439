"""Pass rates: hand-made records with rates that can be counted, and the way from prompts to records."""

import numpy as np
import pytest

from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.evaluation.pass_rates import (
    Record,
    VerifiedPrompt,
    complete_and_verify,
    pass_rate_changes,
    pass_rates,
    verified_prompts,
)
from lightning_bnf.evaluation.statistics.intervals import paired_bootstrap
from lightning_bnf.evaluation.verify import VerifierError
from lightning_bnf.generation.sampling import Sampling, generate_with_lengths


def record(prompt_id: str, passed: bool, family: str = "sums", group: str = "trained", decoding: str = "greedy"):
    return Record(prompt_id, (group, family), decoding, "text", float(passed), passed, 4 if passed else 8, True)


def test_rates_per_group_decoding_and_family():
    """Trained: 2 of 4 (sums 2 of 3, lists 0 of 1); kept-out: 1 of 1. Lengths are 4 when passed, else 8."""
    records = [
        record("a", True),
        record("b", True),
        record("c", False),
        record("d", False, "lists"),
        record("e", True, "minus", "kept-out"),
    ]
    found = [(rate.group, rate.decoding, rate.n, rate.rate, rate.length) for rate in pass_rates(records)]
    assert found == [
        ("trained", "greedy", 4, 0.5, 6.0),
        ("kept-out", "greedy", 1, 1.0, 4.0),
        ("lists", "greedy", 1, 0.0, 8.0),
        ("minus", "greedy", 1, 1.0, 4.0),
        ("sums", "greedy", 3, pytest.approx(2 / 3), pytest.approx(16 / 3)),
    ]


def test_changes_are_paired_by_prompt():
    """Before: a, b of 4; after: b, c, d of 4, in another order. Change 1/4; differences -1, 0, 1, 1."""
    before = [record(name, name in "ab") for name in "abcd"]
    after = [record(name, name in "bcd") for name in "dbca"]
    trained, family = pass_rate_changes(before, after)
    assert (trained.group, family.group, trained.n) == ("trained", "sums", 4)
    assert (trained.before, trained.after, trained.change) == (0.5, 0.75, 0.25)
    assert (trained.low, trained.high) == paired_bootstrap(np.array([-1.0, 0.0, 1.0, 1.0]))
    assert trained.low < 0.25 < trained.high


def test_changes_refuse_different_prompts():
    with pytest.raises(ValueError, match=r"group 'trained' \(greedy\): prompts must be the same before and after"):
        pass_rate_changes([record("a", True)], [record("b", True)])
    with pytest.raises(ValueError, match="prompts must be the same before and after, once each"):
        pass_rate_changes([record("a", True)] * 2, [record("a", True)] * 2)
    with pytest.raises(ValueError, match="the groups must be the same before and after, got"):
        pass_rate_changes([record("a", True)], [record("a", True, "lists")])


def test_prompts_are_completed_to_their_own_limit_and_verified(tiny_llama, tokenizer):
    prompts = [
        VerifiedPrompt("a", "x", [1, 500, 501], {"name": "fewer_words", "limit": 1000}, 4),
        VerifiedPrompt("b", "y", [1, 600], {"name": "number", "answer": 123456789}, 7, kept_out=True),
        VerifiedPrompt("c", "x", [1, 700, 701, 702], {"name": "fewer_words", "limit": 1000}, 4),
    ]
    found = complete_and_verify(tiny_llama, tokenizer, prompts, temperature=0.8, seed=2)
    assert [(one.prompt_id, one.decoding) for one in found] == [
        (name, decoding) for decoding in ("greedy", "sampled") for name in "abc"
    ]
    assert [one.groups for one in found[:3]] == [("trained", "x"), ("kept-out", "y"), ("trained", "x")]
    for one, limit in zip(found, [4, 7, 4, 4, 7, 4], strict=True):
        assert one.length == limit  # the random model does not end its turn
        assert not one.finished
        assert not one.passed  # whatever its score: it was cut off
    plain = generate_with_lengths(tiny_llama, tokenizer, [prompts[1].prompt_ids], Sampling(0.0, 7))
    assert found[1].text == plain[0][0].text


def test_a_wrong_verifier_is_refused_before_generating(tokenizer):
    prompt = VerifiedPrompt("a", "x", [1], {"name": "nonsense"}, 4)
    with pytest.raises(VerifierError, match="nonsense"):
        complete_and_verify(None, tokenizer, [prompt])


def test_rows_without_a_verifier_are_left_out():
    rows = [
        TokenizedRow(
            "id1", "f:1", "prompt", [1, 2], verifier={"name": "title"}, family="t", prompt_id="p", kept_out=True
        ),
        TokenizedRow("id2", "f:2", "prompt", [1, 3]),
        TokenizedRow("id3", "f:3", "prompt", [1, 4], verifier={"name": "title"}, max_new_tokens=9),
    ]
    assert verified_prompts(rows, max_new_tokens=50) == [
        VerifiedPrompt("p", "t", [1, 2], {"name": "title"}, 50, kept_out=True),
        VerifiedPrompt("id3", "no family", [1, 4], {"name": "title"}, 9),
    ]
