"""Scores before and after merging, by hand and against log-softmax."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.export.merge import change_of_base, rescored, scores
from lightning_bnf.policies import FullPolicy, LoRAPolicy, QLoRAPolicy

pytestmark = pytest.mark.slow


def test_the_largest_difference_by_hand(write_pairs: Callable[..., str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Distances 0, 0.5, 0.25 and 0.25: at most 0.5, 0.25 on average, up or down."""
    rows = load_rows(write_pairs(rows=2), tokenizer)[0]
    found = rescored(rows, torch.tensor([-1.0, -2.0, -3.0, -4.0]), torch.tensor([-1.0, -2.5, -2.75, -4.25]))
    assert (found.rows, found.tokens, found.largest, found.mean) == (2, 4, 0.5, 0.25)
    assert str(found).startswith("token log-probs of 4 tokens in 2 rows differ by at most 0.5 nats (0.25 on average)")


def test_scores_are_the_models_log_probs(
    tiny_folder: str, write_pairs: Callable[..., str], tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = load_rows(write_pairs(rows=2), tokenizer)[0]
    policy = FullPolicy(tiny_folder)
    policy.load()
    wanted = []
    for row in rows:
        for completion in row.completions:
            ids = torch.tensor([[*row.prompt_ids, *completion.ids]])
            with torch.no_grad():
                logps = policy.causal_lm(ids).logits[0].log_softmax(-1)
            first = len(row.prompt_ids)
            wanted += [logps[first + i - 1, token] for i, token in enumerate(completion.ids)]
    torch.testing.assert_close(scores(policy, rows), torch.stack(wanted), rtol=0, atol=1e-4)
    assert policy.training, "the mode is put back"


@pytest.mark.parametrize(("kind", "changes"), [(LoRAPolicy, False), (QLoRAPolicy, True)])
def test_a_4_bit_base_is_not_the_one_that_is_merged_into(
    tiny_folder: str,
    write_pairs: Callable[..., str],
    tokenizer: PreTrainedTokenizerBase,
    kind: type[LoRAPolicy],
    changes: bool,
) -> None:
    """Whatever the adapter is, only the base counts here."""
    rows = load_rows(write_pairs(rows=2), tokenizer)[0]
    policy = kind(tiny_folder, r=4, dtype="float32")
    policy.load()
    found = change_of_base(policy, rows, "float32")
    assert (found.largest > 0.05) == changes
    for parameter in policy.trainable().values():
        parameter.data += 1.0
    assert change_of_base(policy, rows, "float32") == found
