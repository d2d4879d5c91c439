"""Near-duplicates of the BNF paper's Figure 2: what a model gives each token of two answers that hardly differ."""

from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_bnf.runtime.refusal import Refusal

SIDES = ("chosen", "rejected")


@torch.no_grad()
def token_table(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pair: dict[str, Any]) -> pd.DataFrame:
    """A line for each token of both answers: columns side, token, differs, logp (nats).

    pair: prompt, chosen and rejected as plain texts of as many tokens each

    Raises `Refusal` where the answers have different numbers of tokens, so that none lies over another.
    """
    prompt, chosen, rejected = (
        tokenizer(pair[name], add_special_tokens=False)["input_ids"] for name in ("prompt", *SIDES)
    )
    if len(chosen) != len(rejected):
        raise Refusal(f"pair must have answers of as many tokens, got {len(chosen)} and {len(rejected)}")
    differs = [one != other for one, other in zip(chosen, rejected)]
    lines = []
    for side, ids in zip(SIDES, (chosen, rejected)):
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        logps = logits.double().log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
        tokens = [tokenizer.decode([one]) for one in ids]
        lines.append(pd.DataFrame({"side": side, "token": tokens, "differs": differs, "logp": logps.numpy()}))
    return pd.concat(lines, ignore_index=True)
