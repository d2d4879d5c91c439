"""Which of a batch's log-probs belong to which row."""

import pytest
import torch
from support.training import full_module
from transformers import PreTrainedTokenizerBase

from lightning_bnf.callbacks.token_scores import ScoredRows, shown_rows
from lightning_bnf.datamodules.steps.layout import PACKED, PADDED, SHARED_PROMPT, Layout
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.losses import BNF


def row(name: str, prompt: list[int], *answers: list[int], trained: list[bool] | None = None) -> TokenizedRow:
    made = [TokenizedCompletion(ids, trained or [True] * len(ids), 1 - 2 * (i % 2)) for i, ids in enumerate(answers)]
    return TokenizedRow(name, "", "paired", prompt, tuple(made))


ONE, TWO, OTHER = row("1", [5, 6], [7, 8, 9], [10]), row("2", [5], [7], [8, 9]), row("3", [4], [4], [4, 4])


def test_log_probs_go_to_their_rows_whatever_the_order() -> None:
    scored = ScoredRows([ONE, TWO])
    for rows in ([OTHER, TWO], [ONE]):
        batch = PADDED.batch(rows, (1, -1))
        scored.take(batch, batch.target.double())
    assert scored.taken() == [[[7, 8, 9], [10]], [[7], [8, 9]]]


def test_what_is_missing_is_nothing_and_is_not_carried_into_the_next_pass() -> None:
    scored = ScoredRows([ONE, TWO])
    for rows in ([ONE, OTHER], [TWO]):
        batch = PADDED.batch(rows, (1, -1))
        scored.take(batch, batch.target.double())
        assert scored.taken() is None


def test_tokens_that_are_not_trained_have_no_log_prob() -> None:
    some = row("1", [5], [7, 8, 9], trained=[False, True, True])
    batch = PADDED.batch([some], (1, -1))
    scored = ScoredRows([some])
    scored.take(batch, batch.target.double())
    assert scored.taken() == [[[8, 9]]]


@pytest.mark.parametrize("layout", [PADDED, PACKED, SHARED_PROMPT])
def test_a_pass_of_its_own_gives_what_the_model_gives(tiny_folder: str, layout: Layout) -> None:
    module = full_module(tiny_folder, BNF())
    before = torch.get_rng_state()
    found = ScoredRows([ONE, TWO, OTHER]).score(module, layout, 6, rank=0, world_size=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert module.policy.training
    for each, own in zip([ONE, TWO, OTHER], found):
        for completion, logps in zip(each.completions, own):
            ids = torch.tensor([[*each.prompt_ids, *completion.ids]])
            with torch.no_grad():
                wanted = module.policy.causal_lm(ids).logits.log_softmax(-1)[0, len(each.prompt_ids) - 1 : -1]
            wanted = wanted.gather(-1, torch.tensor(completion.ids)[:, None]).squeeze(-1)
            assert logps == pytest.approx(wanted.tolist(), abs=1e-5)


def test_how_rows_are_shown(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("Hello Ann!")["input_ids"]
    plain = TokenizedRow("1", "", "paired", tokenizer("Hi")["input_ids"], (TokenizedCompletion(ids, [True] * 3, 1),))
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rows = [plain, TokenizedRow(**vars(plain) | {"prompt": chat[1:]}), TokenizedRow(**vars(plain) | {"prompt": chat})]
    shown = shown_rows(rows, tokenizer)
    assert [one.prompt for one in shown] == ["Hi", "Hi", "system: Be brief.\nuser: Hi"]
    assert shown[0].answers[0].pieces == ["Hello", " Ann", "!"]
    assert shown[0].key == shown[1].key
