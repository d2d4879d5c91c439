"""Summed log-probs in shared micro-batches, and the base's samples, which are drawn once."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.evaluation.likelihood.material import LikelihoodRows, Material
from lightning_bnf.evaluation.likelihood.scoring import (
    draw,
    giving,
    kept_samples,
    rounded,
    scored,
    summed_logps,
    way_of,
)
from lightning_bnf.policies.base import PolicyError
from lightning_bnf.policies.exported import exported
from lightning_bnf.runtime.refusal import Refusal

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def policy(tiny_folder):
    loaded = exported(tiny_folder)
    loaded.load()
    return loaded


def row(name: str, prompt: list[int], *answers: list[int]) -> TokenizedRow:
    completions = tuple(TokenizedCompletion(ids, [True] * len(ids), 1 - 2 * (i > 0)) for i, ids in enumerate(answers))
    return TokenizedRow(name, f"x:{name}", "unpaired", prompt, completions)


def test_sums_are_the_models_own_in_the_rows_order(policy):
    """A question of three options and a text of one, together in one pass."""
    rows = [row("1", [5, 6, 7], [8], [9, 10], [11, 12, 13]), row("2", [20], [21, 22, 23, 24])]
    found = summed_logps(giving(policy), rows, way_of(policy, rows, 256), CPU)
    for one, sums in zip(rows, found, strict=True):
        for completion, total in zip(one.completions, sums, strict=True):
            ids = one.prompt_ids + completion.ids
            with torch.no_grad():
                logps = policy.loaded(torch.tensor([ids])).logits[0].log_softmax(-1)
            right = sum(logps[i - 1, ids[i]].item() for i in range(len(one.prompt_ids), len(ids)))
            assert total == pytest.approx(right, abs=1e-4)


def test_sums_come_back_by_kind(policy):
    pair, text, sample = row("1", [5], [6], [7]), row("2", [5], [6, 7]), row("3", [5], [7])
    rows = [pair, text, sample]
    sums = scored(giving(policy), Material(pairs=[pair], prose=[text]), [sample], way_of(policy, rows, 64), CPU)
    assert sums.pairs[0][1] == pytest.approx(sums.base_samples[0][0], abs=1e-5), "the same token after the same prompt"
    assert [len(part) for part in (sums.questions, sums.pairs, sums.prose, sums.own_samples)] == [0, 1, 1, 0]


def test_log_probs_that_are_not_finite_are_refused(policy):
    rows = [row("1", [5], [6])]
    with pytest.raises(PolicyError, match="must be a model of finite log-probs, got others of x:1"):
        summed_logps(lambda batch: torch.full((1,), torch.nan), rows, way_of(policy, rows, 64), CPU)


def test_samples_are_drawn_once_and_only_taken_for_what_they_were_drawn_of(policy, tmp_path):
    asked = LikelihoodRows(choices=[], prose=None, max_new_tokens=4, samples=str(tmp_path / "samples.json"))
    prompts = [row("1", [5, 6]), row("2", [7, 8, 9])]
    first = kept_samples(asked, prompts, "base", lambda: draw(policy, prompts, asked))
    assert all(1 <= len(one.completions[0].ids) <= 4 for one in first)
    again = kept_samples(asked, prompts, "base", lambda: pytest.fail("they are there"))
    assert again == first
    for others, name in (((asked, prompts, "another"), "base"), ((asked, prompts[:1], "base"), "prompts")):
        with pytest.raises(Refusal, match=f"got .*samples.json, of another {name}"):
            kept_samples(*others, lambda: [])
    with pytest.raises(Refusal, match="of another seed"):
        kept_samples(replace(asked, seed=2), prompts, "base", lambda: [])
    assert set(json.loads((tmp_path / "samples.json").read_text())) == {"drawn", "ids"}


def test_numbers_for_json():
    assert rounded({"a": np.array([1.00004, 2.0])}) == {"a": [1.0, 2.0]}
