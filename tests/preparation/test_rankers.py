"""Rankers of pairs: margins become shares of wins."""

import pytest
import torch
from support.scoring import GROUPS

from lightning_bnf.preparation import Candidates, PairRanker, PairRM
from lightning_bnf.preparation.rankers import MARKS, PairRMModel, shares_of_wins
from lightning_bnf.preparation.scoring import ScoringError

pytestmark = pytest.mark.slow


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
    with pytest.raises(ScoringError, match="prompts must be one user message, got 3 messages"):
        PairRM(pairrm_folder).score([Candidates(turns, ("a", "b"))], tmp_path / "work.jsonl")
    with pytest.raises(ScoringError, match="texts to compare must be without"):
        PairRM(pairrm_folder).score([Candidates(GROUPS[0].prompt, ("a", MARKS[1]))], tmp_path / "work.jsonl")
