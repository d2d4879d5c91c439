"""Where the sequences of packed and shared rows lie, by hand."""

import torch
from support.architectures import ROWS

from lightning_bnf.batch import Document
from lightning_bnf.datamodules.steps.layout import packed, packed_shared, shared_prompt
from lightning_bnf.datamodules.steps.sequences import sequences_of


def test_a_further_completion_has_its_prompts_keys_once_more() -> None:
    """Prompt 0 1 2, completions 3 4 and 5 6; then prompt 7, completion 8: keys 0 1 2 3 4 | 0 1 2 5 6 | 7 8."""
    made = sequences_of([Document(0, 0, 3, (2, 2)), Document(0, 7, 1, (1,))], (1, 9))
    assert made.query_ends.tolist() == [0, 5, 7, 9]
    assert made.key_ends.tolist() == [0, 5, 10, 12]
    assert made.keys is not None
    assert made.copies is not None
    assert made.keys.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 5, 6, 7, 8]
    assert made.copies.tolist() == [[0, 1, 2, 3, 4, 8, 9, 10, 11], [5, 6, 7, *[12] * 6]]
    assert (made.longest_query, made.longest_key) == (5, 5)


def test_what_documents_have_in_common_comes_before_each_of_their_sequences() -> None:
    """0 1 in common, then prompt 2, completions 3 and 4 5; then prompt 6, completion 7.

    Keys 0 1 | 0 1 2 3 | 0 1 2 4 5 | 0 1 6 7."""
    made = sequences_of([Document(0, 0, 2), Document(0, 2, 1, (1, 2), 2), Document(0, 6, 1, (1,), 2)], (1, 8))
    assert made.query_ends.tolist() == [0, 2, 4, 6, 8]
    assert made.key_ends.tolist() == [0, 2, 6, 11, 15]
    assert made.keys is not None
    assert made.copies is not None
    assert made.common is not None
    assert made.keys.tolist() == [0, 1, 0, 1, 2, 3, 0, 1, 2, 4, 5, 0, 1, 6, 7]
    assert made.copies.tolist() == [[0, 1, 4, 5, 9, 10, 13, 14], [15, 15, 8, *[15] * 5]]
    assert made.common.tolist() == [[2, 3], [6, 7], [11, 12]]
    assert (made.longest_query, made.longest_key) == (2, 5)


def test_padding_ends_the_last_sequence_of_its_row() -> None:
    """ROWS are 3 + 2 + 4 and 2 + 1 + 2 tokens, in rows of 9."""
    made = shared_prompt(ROWS).sequences
    assert made is not None
    assert made.documents == (Document(0, 0, 3, (2, 4)), Document(1, 0, 2, (1, 2)))
    assert made.query_ends.tolist() == [0, 5, 9, 12, 18]
    assert made.key_ends.diff().tolist() == [5, 7, 3, 8]
    other = packed_shared(ROWS).sequences
    assert other is not None
    assert other.documents == (Document(0, 0, 3, (2, 4)), Document(0, 9, 2, (1, 2)))
    assert other.query_ends.tolist() == [0, 5, 9, 12, 14]


def test_what_shares_nothing_has_its_own_keys_alone() -> None:
    made = packed(ROWS).sequences
    assert made is not None
    assert made.keys is made.copies is made.common is None
    assert made.query_ends.tolist() == made.key_ends.tolist() == [0, 5, 12, 15, 19]
    moved = made.map(lambda tensor: tensor.to("meta"))
    assert moved.query_ends.is_meta


def test_no_document_is_a_sequence_of_padding_and_no_completion_is_none() -> None:
    for layout in (packed, shared_prompt, packed_shared):
        made = layout([]).sequences
        assert made is not None
        assert (made.documents, made.query_ends.tolist(), made.keys) == ((), [0, 1], None)
    made = sequences_of([Document(0, 0, 2, (2, 0, 1))], (1, 5))
    assert made.query_ends.tolist() == [0, 4, 5]
    assert made.keys is not None
    assert torch.equal(made.keys, torch.tensor([0, 1, 2, 3, 0, 1, 4]))
