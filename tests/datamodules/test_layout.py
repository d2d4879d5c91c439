"""The padded layout against one sequence at a time, and where its tokens lie."""

import oracles
import torch
from transformers import LlamaForCausalLM

from lightning_bnf.datamodules.layout import padded
from lightning_bnf.datamodules.template import TokenizedCompletion, TokenizedRow


def row(name: str, prompt: list[int], *completions: tuple[list[int], int], paired: bool = True) -> TokenizedRow:
    done = tuple(TokenizedCompletion(ids, [True] * len(ids), label) for ids, label in completions)
    return TokenizedRow(name, f"x:{name}", "paired" if paired else "unpaired", prompt, done)


ROWS = [row("a", [5, 6, 7], ([8, 2], 1), ([9, 10, 11, 2], -1)), row("b", [4, 3], ([2], 1), ([12, 2], -1))]


def test_positions_targets_and_owners_by_hand() -> None:
    """Width 7 (3 + 4). Completion 0 is predicted from positions 2, 3 of row 0; completion 1 from 2..5 of row 1, ..."""
    batch = padded(ROWS)
    assert batch.inputs["input_ids"].shape == (4, 7)
    assert batch.inputs["attention_mask"].sum(-1).tolist() == [5, 7, 3, 4]
    assert batch.position.tolist() == [2, 3, 9, 10, 11, 12, 15, 22, 23]
    assert batch.target.tolist() == [8, 2, 9, 10, 11, 2, 2, 12, 2]
    assert batch.row.tolist() == [0, 0, 1, 1, 1, 1, 2, 3, 3]
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


def test_an_empty_micro_batch_still_feeds_the_model_one_token() -> None:
    batch = padded([])
    assert batch.inputs["input_ids"].shape == (1, 1)
    assert batch.inputs["attention_mask"].tolist() == [[1]]
    assert len(batch.position) == len(batch.length) == 0
    assert batch.examples.pair is not None
    assert batch.examples.pair.shape == (0, 2)


def test_to_moves_every_tensor() -> None:
    moved = padded(ROWS).to("meta")
    tensors = [*moved.inputs.values(), moved.position, moved.target, moved.row, moved.length, moved.examples.label]
    assert all(tensor.device.type == "meta" for tensor in [*tensors, moved.examples.pair])  # type: ignore[union-attr]
