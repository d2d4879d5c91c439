"""A model of a few numbers and rows of one length, to which layouts and budgets are fitted."""

from transformers import LlamaConfig, LlamaForCausalLM

from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.policies import FullPolicy

ROWS = [
    TokenizedRow(str(i), f"x:{i}", "unpaired", [5] * 200, (TokenizedCompletion([7] * 55 + [2], [True] * 56, 1),))
    for i in range(16)
]  # 256 tokens each, 4,096 in all


def smallest() -> FullPolicy:
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    made = FullPolicy("tiny")
    made.model = LlamaForCausalLM(LlamaConfig(vocab_size=10, **small))
    return made
