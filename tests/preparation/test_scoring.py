"""Scores in batches equal scores one at a time, and a run that was killed goes on."""

import json
import math

import pytest
import torch
from support.scoring import GROUPS

from lightning_bnf.preparation import RewardModel
from lightning_bnf.preparation.scoring import Entry, ScoreFile, ScoringError, right_padded

pytestmark = pytest.mark.slow


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 3])
def test_a_killed_run_goes_on_with_what_is_missing(reward_folder, tmp_path, monkeypatch, stop):
    """Five conversations, one a batch: after `stop` of them, and half a line of the next, the rest is computed."""
    folder, work = reward_folder(), tmp_path / "work.jsonl"
    expected = RewardModel(folder, max_tokens=1).score(GROUPS, tmp_path / "whole.jsonl")
    original, calls = RewardModel.outputs, []

    def counted(self, model, batch, own_pad):
        if len(calls) == stop:
            raise Stopped
        calls.append(len(batch))
        return original(self, model, batch, own_pad)

    monkeypatch.setattr(RewardModel, "outputs", counted)
    with pytest.raises(Stopped):
        RewardModel(folder, max_tokens=1).score(GROUPS, work)
    assert len(work.read_text().splitlines()) == stop
    with work.open("a") as file:
        file.write('{"key": "unfinished}')
    monkeypatch.setattr(RewardModel, "outputs", original)
    after = ScoreFile(work, "", 0).store
    assert len(after) == stop
    assert RewardModel(folder, max_tokens=1).score(GROUPS, work) == expected
    lines = [json.loads(line) for line in work.read_text().splitlines()]
    assert len(lines) == len({line["key"] for line in lines}) == 5


def test_other_weights_do_not_meet_old_scores(reward_folder, tokenizer, tmp_path):
    work = tmp_path / "work.jsonl"
    first = RewardModel(reward_folder()).score(GROUPS, work)
    other = RewardModel(reward_folder("own pad"))
    model = other.load_model()
    model.score.weight.data *= 2
    model.save_pretrained(tmp_path / "own pad")
    (row, _) = other.score(GROUPS, work)
    assert row == pytest.approx([2 * score for score in first[0]], abs=1e-5)


@pytest.mark.parametrize("disable", [False, True])
def test_batches_are_alike_in_length_and_within_the_budget(tmp_path, monkeypatch, disable):
    """With a progress bar or without.

    Lengths 1, 5, 2, 6, 3 with 12 tokens: (6, 5) are 2 x 6 = 12 padded; (3, 2, 1) are 3 x 3 = 9.
    """
    monkeypatch.setenv("TQDM_DISABLE", str(int(disable)))
    entries = [Entry(str(length), [9] * length) for length in (1, 5, 2, 6, 3)]
    batches = []

    def compute(batch):
        batches.append([len(entry.ids) for entry in batch])
        return [float(len(entry.ids)) for entry in batch]

    file = ScoreFile(tmp_path / "work.jsonl", "", 5)
    assert file.fill(entries, compute, 12) == {"1": 1.0, "5": 5.0, "2": 2.0, "6": 6.0, "3": 3.0}
    assert batches == [[6, 5], [3, 2, 1]]
    assert file.fill(entries, compute, 12)["6"] == 6.0
    assert len(batches) == 2, "nothing is computed twice"
    assert file.bar.total == 0, "the bar counts new work only"


def test_scores_that_are_no_numbers_stop_the_run(tmp_path):
    file = ScoreFile(tmp_path / "work.jsonl", "Scores of x", 1)
    with pytest.raises(ScoringError, match="Scores of x: a score must be a finite number, got nan"):
        file.fill([Entry("a", [1])], lambda batch: [math.nan], 10)
    assert len(ScoreFile(tmp_path / "work.jsonl", "", 0).store) == 0


def test_padding_is_masked_by_length_also_where_it_is_a_token_of_the_text():
    ids, mask = right_padded([Entry("", [2, 5, 2]), Entry("", [2])], 2, torch.device("cpu"))
    assert ids.tolist() == [[2, 5, 2], [2, 2, 2]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
