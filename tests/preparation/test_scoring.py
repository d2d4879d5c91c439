"""Scores in batches equal scores one at a time, and a run that was killed goes on."""

import json
import math

import pytest
import torch
from transformers import LlamaModel

from lightning_bnf.datamodules.tokens.chat_template import ChatTemplate
from lightning_bnf.preparation import ArmoRM, Candidates, PairRanker, PairRM, RewardModel
from lightning_bnf.preparation.armorm import Gate
from lightning_bnf.preparation.rankers import MARKS, PairRMModel, shares_of_wins
from lightning_bnf.preparation.reward_models import conversations
from lightning_bnf.preparation.scoring import Entry, ScoreFile, ScoringError, right_padded

GROUPS = [
    Candidates(({"role": "user", "content": "What is 3 + 4?"},), ("7", "The sum of the two is 7, of course.", "8")),
    Candidates(({"role": "user", "content": "Say hello to Ann, Bob and all the others."},), ("Hello!", "No")),
]


class Stopped(Exception):
    pass


def alone(model, tokenizer, group, head=0) -> list[float]:
    """The slow way: one conversation at a time, without any padding."""
    scores = []
    for text in group.completions:
        said = [*group.prompt, {"role": "assistant", "content": text}]
        ids = tokenizer.apply_chat_template(said, tokenize=True, return_dict=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            scores.append(model(input_ids=ids).logits[0, head].item())
    return scores


@pytest.mark.parametrize("kind", ["causal", "pad is end", "own pad", "bert"])
@pytest.mark.parametrize("max_tokens", [1, 120, 10_000])
def test_batches_score_as_one_at_a_time(reward_folder, tokenizer, tmp_path, kind, max_tokens):
    scorer = RewardModel(reward_folder(kind), max_tokens=max_tokens)
    found = scorer.score(GROUPS, tmp_path / "work.jsonl")
    model = scorer.load_model()
    expected = [alone(model, tokenizer, group) for group in GROUPS]
    for row, right in zip(found, expected, strict=True):
        assert row == pytest.approx(right, abs=1e-5)
    assert len({round(score, 4) for row in expected for score in row}) == 5, "the scores do differ"


def test_the_named_output_is_the_score(reward_folder, tokenizer, tmp_path):
    folder = reward_folder("causal", {0: "bad", 1: "middling", 2: "good"})
    model = RewardModel(folder).load_model()
    for label, head in (("good", 2), (0, 0)):
        (row, _) = RewardModel(folder, label=label).score(GROUPS, tmp_path / "work.jsonl")
        assert row == pytest.approx(alone(model, tokenizer, GROUPS[0], head), abs=1e-5)


@pytest.mark.parametrize("label", [None, "great", 3, -1])
def test_outputs_that_do_not_exist_are_refused(reward_folder, tmp_path, label):
    folder = reward_folder("causal", {0: "bad", 1: "middling", 2: "good"})
    with pytest.raises(ScoringError, match=r"has 3 outputs; accepted are 0 to 2, or bad, middling, good"):
        RewardModel(folder, label=label).score(GROUPS, tmp_path / "work.jsonl")


def test_a_model_without_its_head_is_refused(tiny_folder, tmp_path):
    with pytest.raises(ScoringError, match=r"score\.weight is not in its files; accepted: a reward model with"):
        RewardModel(tiny_folder).score(GROUPS, tmp_path / "work.jsonl")


def test_conversations_too_long_have_no_score(reward_folder, tokenizer, tmp_path):
    folder = reward_folder()
    lengths = [len(entry.ids) for entry in conversations(ChatTemplate(tokenizer, {}, ()), GROUPS[0], "")]
    found = RewardModel(folder, max_length=sorted(lengths)[1]).score(GROUPS[:1], tmp_path / "work.jsonl")
    assert [score is None for score in found[0]] == [length == max(lengths) for length in lengths]


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
    after = ScoreFile(work, "", 0).known
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


def test_batches_are_alike_in_length_and_within_the_budget(tmp_path):
    """Lengths 1, 5, 2, 6, 3 with 12 tokens: (6, 5) are 2 x 6 = 12 padded; (3, 2, 1) are 3 x 3 = 9."""
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


def test_scores_that_are_no_numbers_stop_the_run(tmp_path):
    file = ScoreFile(tmp_path / "work.jsonl", "Scores of x", 1)
    with pytest.raises(ScoringError, match="Scores of x: a score is nan; accepted: finite numbers"):
        file.fill([Entry("a", [1])], lambda batch: [math.nan], 10)
    assert not ScoreFile(tmp_path / "work.jsonl", "", 0).known


def test_padding_is_masked_by_length_also_where_it_is_a_token_of_the_text():
    ids, mask = right_padded([Entry("", [2, 5, 2]), Entry("", [2])], 2, torch.device("cpu"))
    assert ids.tolist() == [[2, 5, 2], [2, 2, 2]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


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


def test_wins_by_hand():
    """a beats b in both places; b and c each win when shown first, b by more; a and c tie: a 1.5, b 1, c 0.5 of 2."""
    margins = {(0, 1): 2.0, (1, 0): -1.0, (1, 2): 3.0, (2, 1): 1.0, (0, 2): 0.5, (2, 0): 0.5}
    assert shares_of_wins(margins, 3) == [0.75, 0.5, 0.25]
    assert shares_of_wins({}, 1) == [0.5]


class ByLength(PairRanker):
    """Prefers the longer answer, and a good deal whichever it sees first."""

    def margins(self, comparisons, work_file):
        return [10 + len(g.completions[i]) - len(g.completions[j]) for g, i, j in comparisons]


def test_a_ranker_of_ones_own_needs_margins_only(tmp_path):
    assert ByLength().score(GROUPS, tmp_path / "work") == [[0.25, 1.0, 0.25], [1.0, 0.0]]


def test_pairrm_compares_as_its_layout_says(pairrm_folder, tmp_path):
    """Batches against one comparison at a time, with the head read at each mark's place in the text."""
    from lightning_bnf.policies.sources import load_tokenizer
    from lightning_bnf.preparation.reward_models import load_whole

    asked = [(group, i, j) for group in GROUPS for i in range(2) for j in range(2) if i != j]
    found = PairRM(pairrm_folder, max_tokens=120).margins(asked, tmp_path / "work.jsonl")
    own, model = load_tokenizer(pairrm_folder), load_whole(PairRMModel, pairrm_folder, None, "float32")
    for (group, i, j), margin in zip(asked, found, strict=True):
        texts = [group.prompt[0]["content"], group.completions[i], group.completions[j]]
        parts = [own(mark + text)["input_ids"] for mark, text in zip(MARKS, texts)]
        ids = torch.tensor([[token for part in parts for token in part]])
        places = [ids[0].tolist().index(own.convert_tokens_to_ids(mark)) for mark in MARKS]
        with torch.no_grad():
            hidden = model.pretrained_model(input_ids=ids).last_hidden_state[0]
            left, right = (model.head_layer(torch.cat([hidden[places[0]], hidden[place]])) for place in places[1:])
        assert margin == pytest.approx(float((left - right).mean()), abs=1e-5)
    assert len({round(margin, 4) for margin in found}) == len(asked)
    scores = PairRM(pairrm_folder).score(GROUPS, tmp_path / "work.jsonl")
    assert sum(scores[0]) == pytest.approx(1.5), "three comparisons, one win each, of two per completion"


def test_pairrm_cuts_long_texts_and_says_so(pairrm_folder, tmp_path, capsys):
    """Of 24 tokens the prompt has at most 8, each answer half of what is left: prompt and long answer are cut."""
    scorer = PairRM(pairrm_folder, max_prompt_length=8, max_length=24)
    scorer.score(GROUPS[:1], tmp_path / "work.jsonl")
    assert "2 texts are longer than it reads and were cut" in capsys.readouterr().out


def test_pairrm_refuses_conversations_and_marks(pairrm_folder, tmp_path):
    turns = tuple({"role": role, "content": "x"} for role in ("user", "assistant", "user"))
    with pytest.raises(ScoringError, match="a prompt has 3 messages; accepted: prompts of one user message"):
        PairRM(pairrm_folder).score([Candidates(turns, ("a", "b"))], tmp_path / "work.jsonl")
    with pytest.raises(ScoringError, match="accepted: texts without"):
        PairRM(pairrm_folder).score([Candidates(GROUPS[0].prompt, ("a", MARKS[1]))], tmp_path / "work.jsonl")
