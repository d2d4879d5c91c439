"""Reward models: batches score as one conversation at a time does."""

import pytest
import torch
from support.scoring import GROUPS

from lightning_bnf.datamodules.tokens.chat_template import ChatTemplate
from lightning_bnf.preparation import RewardModel
from lightning_bnf.preparation.reward_models import conversations
from lightning_bnf.preparation.scoring import ScoringError

pytestmark = pytest.mark.slow


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
    with pytest.raises(ScoringError, match=r"label must be 0 to 2, or bad, middling, good, the outputs of .*, got"):
        RewardModel(folder, label=label).score(GROUPS, tmp_path / "work.jsonl")


def test_a_model_without_its_head_is_refused(tiny_folder, tmp_path):
    with pytest.raises(ScoringError, match=r"source must be a reward model with .*, got .* score\.weight \(lacking\)"):
        RewardModel(tiny_folder).score(GROUPS, tmp_path / "work.jsonl")


def test_conversations_too_long_have_no_score(reward_folder, tokenizer, tmp_path):
    folder = reward_folder()
    lengths = [len(entry.ids) for entry in conversations(ChatTemplate(tokenizer, {}, ()), GROUPS[0], "")]
    found = RewardModel(folder, max_length=sorted(lengths)[1]).score(GROUPS[:1], tmp_path / "work.jsonl")
    assert [score is None for score in found[0]] == [length == max(lengths) for length in lengths]
