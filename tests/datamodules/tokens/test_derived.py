"""Pairs that lose a side: how many, which ones, nested over ratios; and prompts with other rows' completions."""

import hashlib
from collections.abc import Sequence

import pytest
from support import slow_rows as slow
from support.training import Write
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.tokens.derived import Mismatched, PartlyPaired
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.datamodules.tokens.rows import HeldRows


def row(number: int, *labels: int) -> TokenizedRow:
    completions = tuple(TokenizedCompletion([number, label % 5], [True, True], label) for label in labels)
    return TokenizedRow(str(number), f"file:{number}", "paired" if len(labels) == 2 else "unpaired", [7], completions)


ROWS = [row(i, 1, -1) for i in range(200)] + [row(200, 1), row(201, -1)]


def sides(rows: Sequence[TokenizedRow]) -> list[tuple[int, ...]]:
    return [tuple(one.label for one in found.completions) for found in rows]


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0])
def test_the_share_asked_for_stays_whole(ratio: float) -> None:
    found = PartlyPaired(ROWS, ratio, seed=3)
    kept = sides(found)
    assert sides([found[i] for i in range(-len(found), 0)]) == sides(found[:]) == kept
    assert found.report == f"pairing_ratio {ratio:g}: {int(200 * ratio)} of 202 rows are pairs"
    assert kept[:200].count((1, -1)) == 200 * ratio
    assert [found[i].format for i in (200, 201)] == ["unpaired"] * 2
    assert kept[200:] == [(1,), (-1,)], "rows of one label stay as they are"
    for own, before in zip(found, ROWS):
        assert (own.format == "paired") == (len(own.completions) == 2)
        assert all(one in before.completions for one in own.completions)
        assert (own.id, own.prompt_ids) == (before.id, before.prompt_ids)
    alone = 200 - int(200 * ratio)
    if alone:  # a fair coin: four standard deviations
        assert abs(kept[:200].count((1,)) - alone / 2) < 2 * alone**0.5


def test_ratios_are_nested_and_seeds_differ() -> None:
    none, some = sides(PartlyPaired(ROWS, 0, 3)), sides(PartlyPaired(ROWS, 0.5, 3))
    assert all(one in ((1, -1), alone) for one, alone in zip(some, none))
    assert some == sides(PartlyPaired(ROWS, 0.5, 3))
    assert some != sides(PartlyPaired(ROWS, 0.5, 4))


def test_the_partner_of_a_row_does_not_depend_on_the_order(
    tokenizer: PreTrainedTokenizerBase, write_pairs: Write
) -> None:
    rows, _ = load_rows(write_pairs(), tokenizer)
    first = {row.id: row for row in Mismatched(rows, 200)}
    again = {row.id: row for row in Mismatched(rows[::-1], 200)}
    assert first == again
    own = {row.id + " (mismatched)": row for row in rows}
    assert all(first[id].prompt_ids == row.prompt_ids for id, row in own.items())
    assert all(first[id].completions != row.completions for id, row in own.items())


@pytest.mark.parametrize("prompts", ["a", "ab", "aab", "abba", "aaaaaaab", "aaaabbbbaaaacc", "abcabcaab"])
def test_the_partner_is_the_next_row_with_another_prompt(prompts: str) -> None:
    """Against a search in the order of the ids' hashes; the completion of row i is the token 1000 + i."""
    rows = [
        TokenizedRow(str(i), "", "unpaired", [ord(prompt)], (TokenizedCompletion([1000 + i], [True], 1),))
        for i, prompt in enumerate(prompts)
    ]
    order = sorted(range(len(rows)), key=lambda i: hashlib.sha256(str(i).encode()).digest())
    for i, row in enumerate(Mismatched(rows, 9)):
        at = order.index(i)
        others = [k for k in order[at + 1 :] + order[:at] if prompts[k] != prompts[i]]
        assert [completion.ids for completion in row.completions] == [[1000 + k] for k in others[:1]]


def test_rows_of_one_prompt_are_read_a_few_times_each() -> None:
    class Counted(HeldRows):
        reads = 0

        def row(self, index: int) -> TokenizedRow:
            self.reads += 1
            return super().row(index)

    rows = Counted([row(i, 1) for i in range(500)])
    assert not any(found.completions for found in Mismatched(rows, 9))
    assert rows.reads <= 3 * 500


@pytest.mark.parametrize("max_length", [6, 11, 1000])
def test_mismatched_rows_are_those_of_one_row_after_the_other(max_length: int) -> None:
    rows = slow.some_rows(80)
    assert [*Mismatched(rows, max_length)] == slow.mismatched(rows, max_length)
    assert not len(Mismatched([], max_length))


def test_mismatched_completions_are_cut_to_the_length_limit(
    tokenizer: PreTrainedTokenizerBase, write_pairs: Write
) -> None:
    rows, _ = load_rows(write_pairs(rows=5), tokenizer)
    limit = max(len(row.prompt_ids) for row in rows) + 1
    for row in Mismatched(rows, limit):
        assert all(0 < len(row.prompt_ids) + len(completion.ids) <= limit for completion in row.completions)
    assert not Mismatched(rows[:1], 200)[0].completions, "one prompt alone has no partner"
