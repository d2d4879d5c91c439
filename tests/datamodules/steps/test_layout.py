"""The layouts against one sequence at a time, and where their tokens lie."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from support import oracles
from support.architectures import ARCHITECTURES, ROWS, assert_alike, gradients, long_rows, policy_of, row
from transformers import LlamaForCausalLM

from lightning_bnf.datamodules.steps.layout import (
    PACKED,
    PADDED,
    SHARED_PROMPT,
    Layout,
    layout_for,
    packed,
    padded,
    shared_prompt,
    tokens_in_common,
)
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.policies.attention import sees

pytestmark = pytest.mark.slow


def test_positions_targets_and_owners_by_hand() -> None:
    """Width 7 (3 + 4). Completion 0 is predicted from positions 2, 3 of row 0; completion 1 from 2..5 of row 1, ..."""
    batch = padded(ROWS)
    assert batch.inputs["input_ids"].shape == (4, 7)
    assert batch.inputs["attention_mask"].sum(-1).tolist() == [5, 7, 3, 4]
    assert batch.position.tolist() == [2, 3, 9, 10, 11, 12, 15, 22, 23]
    assert batch.target.tolist() == [8, 2, 9, 10, 11, 2, 2, 12, 2]
    assert batch.completion.tolist() == [0, 0, 1, 1, 1, 1, 2, 3, 3]
    assert batch.length.tolist() == [2, 4, 1, 2]
    assert batch.examples.label.tolist() == [1, -1, 1, -1]
    assert batch.examples.pair is not None
    assert batch.examples.pair.tolist() == [[0, 1], [2, 3]]
    assert batch.row_ids == ("a", "a", "b", "b")


def test_untrained_tokens_are_in_the_input_and_nowhere_else() -> None:
    masked = TokenizedRow("c", "x", "demonstration", [4], (TokenizedCompletion([5, 6, 7], [True, False, True], 1),))
    batch = padded([masked])
    assert batch.inputs["input_ids"].tolist() == [[4, 5, 6, 7]]
    assert batch.target.tolist() == [5, 7]
    assert batch.position.tolist() == [0, 2]
    assert batch.length.tolist() == [2]
    assert batch.examples.pair is None


def test_labels_that_are_not_learned_from_are_left_out() -> None:
    batch = padded(ROWS, labels=(1,))
    assert batch.examples.label.tolist() == [1, 1]
    assert batch.examples.pair is None


def test_a_shared_prompt_stands_once_by_hand() -> None:
    """Row a: prompt 5 6 7, then 8 2, then 9 10 11 2. Both first tokens are predicted by the prompt's last one."""
    batch = shared_prompt(ROWS)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 2, 9, 10, 11, 2], [4, 3, 2, 12, 2, 0, 0, 0, 0]]
    assert batch.inputs["position_ids"][0].tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 6]
    assert batch.inputs["position_ids"][1, :5].tolist() == [0, 1, 2, 2, 3]
    assert batch.position.tolist() == [2, 3, 2, 5, 6, 7, 10, 10, 12]
    assert batch.target.tolist() == padded(ROWS).target.tolist()
    assert batch.completion.tolist() == padded(ROWS).completion.tolist()
    assert batch.examples.pair is not None
    assert batch.examples.pair.tolist() == [[0, 1], [2, 3]]
    assert batch.inputs["segments"].tolist() == [[0, 0, 0, 1, 1, 2, 2, 2, 2], [0, 0, 1, 2, 2, -1, -1, -1, -1]]
    seen = sees(batch.inputs["segments"])
    assert seen[0, 4].nonzero().flatten().tolist() == [0, 1, 2, 3, 4], "the first completion sees prompt and itself"
    assert seen[0, 6].nonzero().flatten().tolist() == [0, 1, 2, 5, 6], "the second does not see the first"
    assert seen[0, 1].nonzero().flatten().tolist() == [0, 1], "the prompt sees no completion"
    assert seen[1, 7].nonzero().flatten().tolist() == [7], "padding sees itself alone"


def test_packed_sequences_stand_one_behind_the_other_by_hand() -> None:
    """5 6 7 8 2 | 5 6 7 9 10 11 2 | 4 3 2 | 4 3 12 2: 19 tokens in one row, positions from 0 in each."""
    batch = packed(ROWS)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 2, 5, 6, 7, 9, 10, 11, 2, 4, 3, 2, 4, 3, 12, 2]]
    assert batch.inputs["position_ids"].tolist() == [[*range(5), *range(7), *range(3), *range(4)]]
    assert set(batch.inputs) == {"input_ids", "position_ids"}, "a mask would hide the sequences' ends from the model"
    assert batch.position.tolist() == [2, 3, 7, 8, 9, 10, 13, 16, 17]
    assert batch.target.tolist() == padded(ROWS).target.tolist()
    assert batch.examples.pair is not None
    assert batch.examples.pair.tolist() == [[0, 1], [2, 3]]
    assert packed(ROWS[:0]).inputs["input_ids"].shape == (1, 1)


def test_what_prompts_begin_with_stands_once_by_hand() -> None:
    """5 6 in common, then 7 with 8 and with 9 10, then 3 4 with 2: 9 tokens for 13."""
    rows = [row("a", [5, 6, 7], ([8], 1), ([9, 10], -1)), row("b", [5, 6, 3, 4], ([2], 1))]
    layout = layout_for("packed_shared", rows)
    assert layout.common == 2
    assert [*layout.lengths_of(rows, (1, -1))] == [(4,), (3,)]
    assert [*layout.lengths_of(rows, (-1,))] == [(3,), ()]
    batch = layout.batch(rows, (1, -1))
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10, 3, 4, 2]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 3, 4, 2, 3, 4]]
    assert batch.inputs["documents"].tolist() == [[-1, -1, 0, 0, 0, 0, 1, 1, 1]]
    assert batch.inputs["segments"].tolist() == [[0, 0, 0, 1, 2, 2, 0, 0, 1]]
    assert batch.position.tolist() == [2, 2, 4, 7]
    assert batch.target.tolist() == [8, 9, 10, 2]
    assert [*batch.keys] == [*padded(rows).keys], "the reference cache knows no layouts"
    seen = sees(batch.inputs["segments"], documents=batch.inputs["documents"])[0]
    assert seen[8].nonzero().flatten().tolist() == [0, 1, 6, 7, 8]
    assert seen[5].nonzero().flatten().tolist() == [0, 1, 2, 4, 5]
    assert layout.batch([], (1, -1)).inputs["input_ids"].tolist() == [[0]], "a row that keeps ranks together"
    with pytest.raises(ValueError, match="more than 2 tokens that begin with the same 2"):
        layout.batch([rows[0], row("c", [5, 7, 1], ([2], 1))], (1, -1))


def test_little_in_common_is_not_shared() -> None:
    """Of 50 + 1 tokens a row, 3 are more than a twentieth, and 2 are not; of one row nothing is; a prompt keeps one."""
    ids = torch.randint(3, 60, (2, 60), generator=torch.Generator().manual_seed(3)).tolist()
    for alike, wanted in ((3, 0), (6, 6), (50, 49)):
        rows = [row(str(i), [*ids[0][:alike], 60 + i, *one[: 49 - alike]], ([2], 1)) for i, one in enumerate(ids)]
        rows = [replace(one, prompt_ids=one.prompt_ids[:50]) for one in rows]
        assert tokens_in_common(rows) == wanted
        assert tokens_in_common(rows[:1]) == tokens_in_common([]) == 0


@pytest.mark.parametrize("layout", [PADDED, SHARED_PROMPT])
@pytest.mark.parametrize("labels", [(1, -1), (1,), (-1,)])
def test_lengths_are_those_of_the_model_rows(layout: Layout, labels: tuple[int, ...]) -> None:
    wanted = [n for lengths in layout.lengths_of(ROWS, labels) for n in lengths]
    inputs = layout.batch(ROWS, labels).inputs
    assert len(inputs["input_ids"]) == len(wanted)
    assert inputs["input_ids"].shape[1] == max(wanted)


def test_log_probs_equal_those_of_each_sequence_alone(tiny_llama: LlamaForCausalLM) -> None:
    batch = padded(ROWS)
    with torch.no_grad():
        logits = tiny_llama(**batch.inputs, use_cache=False).logits.flatten(0, 1).double().log_softmax(-1)
        ours = logits[batch.position, batch.target]
        alone = [
            oracles.full_token_logps(tiny_llama, r.prompt_ids + c.ids, len(r.prompt_ids))
            for r in ROWS
            for c in r.completions
        ]
    torch.testing.assert_close(ours, torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", [PACKED, SHARED_PROMPT], ids=["packed", "shared_prompt"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_layouts_give_the_same_log_probs_and_gradients(architecture: str, layout: Layout) -> None:
    """For an architecture where they did not, `auto` would have to fall back: here none of them has to."""
    policy, rows = policy_of(architecture), long_rows()
    for some in (padded, packed, shared_prompt):
        policy.check_head(some(rows))
    assert_alike(gradients(policy, layout.batch(rows, (1, -1))), gradients(policy, padded(rows)))


@pytest.mark.parametrize("layout", [padded, shared_prompt])
def test_an_empty_micro_batch_still_feeds_the_model_one_token(layout: Any) -> None:
    batch = layout([])
    assert batch.inputs["input_ids"].shape == (1, 1)
    if layout is padded:
        assert batch.inputs["attention_mask"].flatten().tolist() == [1]
    else:
        assert sees(batch.inputs["segments"]).flatten().tolist() == [True]
    assert len(batch.position) == len(batch.length) == 0
    assert batch.examples.pair is not None
    assert batch.examples.pair.shape == (0, 2)
