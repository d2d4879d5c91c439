"""The suite of answers: all three answer the same prompts, and ours alike with casts that are kept."""

import pytest
from support.turns import Few

from lightning_bnf.costs.bench import answers
from lightning_bnf.costs.bench.workers import Over
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation.sampling import Sampling
from lightning_bnf.policies import LoRAPolicy


def test_transformers_own_and_ours_give_the_same_tokens(tiny_folder: str) -> None:
    policy = LoRAPolicy(tiny_folder)
    policy.load()
    policy.eval()
    asked = answers.prompts(Renderer(policy.tokenizer, end_ids=policy.end_ids), 7)
    assert len({len(prompt) for prompt in asked}) > 1
    own, plain = (how(policy, asked, Sampling(0.0, 20, batch_size=3)) for how in (answers.ours, answers.plain))
    assert own == plain
    assert all(own)


@pytest.mark.slow
def test_turns_of_all_variants_answer(tiny_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_NEW_TOKENS", 4)
    for group in answers.variants(tiny_folder):
        told = []
        for variant in group:
            turns = Few(1)
            with pytest.raises(Over):
                variant.contest(turns, **variant.arguments)
            told += [turn["tokens"] for turn in turns.told]
        assert len(told) == 3
        assert told[1] == told[2]
        assert 0 < min(told) <= max(told) <= 4 * group[0].arguments["count"]
