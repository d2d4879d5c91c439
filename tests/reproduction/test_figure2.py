"""Figure 2's tokens against a model's log-probs by hand."""

import math

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lightning_bnf.reproduction.figure2 import token_table
from lightning_bnf.results.frontier_plots import plot_pair

PAIR = {"prompt": "2 + 2 =", "chosen": " 4.", "rejected": " 5."}


def test_each_token_has_its_log_prob(tiny_llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    """Token by token, each from a forward pass over what stands before it."""
    table = token_table(tiny_llama, tokenizer, PAIR)
    for side in ("chosen", "rejected"):
        mine = table[table["side"] == side]
        ids, before = tokenizer(PAIR[side])["input_ids"], tokenizer(PAIR["prompt"])["input_ids"]
        assert mine["token"].tolist() == [" ", "4" if side == "chosen" else "5", "."]
        assert mine["differs"].tolist() == [False, True, False]
        for one, logp in zip(ids, mine["logp"]):
            with torch.no_grad():
                probs = tiny_llama(torch.tensor([before])).logits[0, -1].double().softmax(-1)
            assert logp == pytest.approx(math.log(probs[one]), abs=1e-5)
            before = [*before, one]


def test_answers_of_different_lengths_are_refused(
    tiny_llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(ValueError, match="pair must have answers of as many tokens, got 3 and 4"):
        token_table(tiny_llama, tokenizer, PAIR | {"rejected": " 15."})


def test_the_figure_names_every_token(tiny_llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    figure = plot_pair(token_table(tiny_llama, tokenizer, PAIR))
    above, below = ([text.get_text() for text in axes.get_xticklabels()] for axes in figure.axes)
    assert (above, below) == (["·", "4", "."], ["·", "5", "."])
    assert figure.get_figwidth() == 7.5
