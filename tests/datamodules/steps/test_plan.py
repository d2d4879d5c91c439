"""The step plan: pure, complete, independent of budget and ranks."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import slow_rows as slow
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.steps.layout import LAYOUTS, LayoutName
from lightning_bnf.datamodules.steps.mixing import WeightedSet, mixed
from lightning_bnf.datamodules.steps.plan import CALL_TOKENS, StepPlan, call_tokens_on
from lightning_bnf.datamodules.tokens.columns import Ragged
from lightning_bnf.datamodules.tokens.load import load_rows

ROOT = Path(__file__).parents[3]

TOKENS = [(5, 7), (9, 3), (4, 4), (20, 18), (6, 6), (8, 8), (2, 3)]


def plan(**changes: object) -> StepPlan:
    return StepPlan(**({"tokens": TOKENS, "examples_per_step": 3, "max_tokens": 40, "seed": 1} | changes))  # type: ignore[arg-type]


def test_an_epoch_holds_every_row_once_and_the_last_step_is_short() -> None:
    p = plan()
    steps = [p.rows(0, step) for step in range(len(p))]
    assert [len(rows) for rows in steps] == [3, 3, 1]
    assert sorted(row for rows in steps for row in rows) == list(range(7))


def test_it_is_a_function_of_seed_epoch_and_step() -> None:
    assert plan().rows(2, 1) == plan().rows(2, 1)
    orders = {tuple(row for step in range(3) for row in plan(seed=s).rows(e, step)) for s in (1, 2) for e in (0, 1)}
    assert len(orders) == 4
    assert plan(seed=None).rows(5, 0) == [0, 1, 2]


def test_the_rows_of_the_first_steps_are_each_named_once() -> None:
    """Also beyond the first epoch, of which each step is in another place."""
    for made, counts in ((plan(), (0, 1, 2, 3, 4, 7)), (plan(seed=None), (0, 2, 5)), (plan(seed=4), (1, 2))):
        for count in counts:
            wanted = {row for step in range(count) for row in made.rows(step // 3, step % 3)}
            assert made.rows_until(count).tolist() == sorted(wanted)
    assert len({tuple(plan(seed=seed).rows_until(1)) for seed in range(8)}) > 1


@pytest.mark.parametrize(
    ("limit", "again", "places"),
    [
        (2, False, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]),
        (0.67, False, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]),
        (2, True, [(0, 0), (0, 1), (0, 0), (0, 1), (0, 0)]),
        (5, False, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]),
        (1.0, False, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]),
    ],
)
def test_of_each_epoch_the_first_steps_are_taken(
    limit: int | float, again: bool, places: list[tuple[int, int]]
) -> None:
    """Of three steps of an epoch."""
    made = plan(limit=limit, again=again)
    assert [made.place(number) for number in range(5)] == places
    for count in range(6):
        wanted = {row for epoch, step in places[:count] for row in made.rows(epoch, step)}
        assert made.rows_until(count).tolist() == sorted(wanted)


def test_a_limit_that_leaves_no_step_of_an_epoch_takes_none() -> None:
    assert plan(limit=0.1).of_epoch == plan(limit=0).of_epoch == 0
    assert plan(limit=0).place(0) == (0, 0)


def test_of_mixed_sets_only_rows_that_are_taken_are_among_the_first() -> None:
    """An epoch ends with the two rows of the first set, and has taken a few of the other's five."""
    sets = [WeightedSet("a", 1.0), WeightedSet("b", 1.0)]
    made = plan(mix=mixed(sets, np.array([0, 0, 1, 1, 1, 1, 1]), "a"), examples_per_step=1)
    epoch = len(made)
    assert epoch < 7
    for count in (epoch, 2 * epoch):
        wanted = {row for step in range(count) for row in made.rows(step // epoch, step % epoch)}
        assert made.rows_until(count).tolist() == sorted(wanted)
    assert len(made.rows_until(epoch)) == epoch


def test_every_step_holds_each_stratum_in_its_share() -> None:
    """30 rows of a, 10 of b, in steps of 4: three and one; every row once, in an order of the seed and the epoch."""
    strata = ("a",) * 30 + ("b",) * 10
    p = plan(tokens=[(1, 1)] * 40, examples_per_step=4, strata=strata)
    steps = [p.rows(0, step) for step in range(10)]
    assert sorted(row for rows in steps for row in rows) == list(range(40))
    assert [sum(strata[row] == "b" for row in rows) for rows in steps] == [1] * 10
    assert p.rows(0, 0) == plan(tokens=[(1, 1)] * 40, examples_per_step=4, strata=strata).rows(0, 0)
    orders = {
        tuple(plan(tokens=[(1, 1)] * 40, examples_per_step=40, strata=strata, seed=seed).rows(epoch, 0))
        for seed in (1, 2)
        for epoch in (0, 1)
    }
    assert len(orders) == 4
    assert plan(strata=("a",) * 7, seed=None).rows(0, 0) == [0, 1, 2]


def test_the_order_is_that_of_one_row_after_the_other() -> None:
    strata = tuple("bacab" * 20)
    for epoch in (0, 2):
        whole = plan(tokens=[(1,)] * 100, examples_per_step=100)
        assert whole.rows(epoch, 0) == slow.order(100, 1, epoch)
        alike = plan(tokens=[(1,)] * 100, examples_per_step=100, strata=strata)
        assert alike.rows(epoch, 0) == slow.order(100, 1, epoch, strata)
        numbered = replace(alike, strata=np.array([" abc".index(name) for name in strata]))
        assert numbered.rows(epoch, 0) == alike.rows(epoch, 0)


def test_lengths_in_arrays_are_cut_as_those_in_lists() -> None:
    lengths = [(random.Random(i).randint(1, 30),) * (i % 3) for i in range(60)]
    for packed in (False, True):
        listed = plan(tokens=lengths, examples_per_step=20, max_tokens=100, packed=packed, world_size=2)
        arrays = replace(listed, tokens=Ragged.of(lengths))
        assert [arrays.micro_batches(1, i) for i in range(3)] == [listed.micro_batches(1, i) for i in range(3)]


@pytest.mark.parametrize("max_tokens", [1, 20, 40, 1000])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_budget_and_ranks_change_nothing_of_a_steps_rows(max_tokens: int, world_size: int) -> None:
    p = plan(max_tokens=max_tokens, world_size=world_size)
    for step in range(len(p)):
        shares = [p.for_rank(0, step, rank) for rank in range(world_size)]
        assert len({len(share) for share in shares}) == 1, "every rank runs equally many micro-batches"
        assert sorted(row for share in shares for batch in share for row in batch) == sorted(plan().rows(0, step))


def test_micro_batches_keep_to_the_budget_with_padding_counted() -> None:
    p = plan(examples_per_step=7)
    for batch in p.micro_batches(0, 0):
        lengths = [n for row in batch for n in TOKENS[row]]
        assert len(lengths) * max(lengths) <= 40 or len(batch) == 1
        assert p.size(batch) == len(lengths) * max(lengths)


def test_rows_that_the_loss_does_not_learn_from_are_in_no_micro_batch() -> None:
    p = plan(tokens=[(5,), (), (4,), ()], examples_per_step=2, seed=None)
    assert [p.micro_batches(0, step) for step in range(2)] == [[[0]], [[2]]]
    assert plan(tokens=[(), ()], seed=None).micro_batches(0, 0) == []


def padding(plan: StepPlan) -> float:
    """The share of padding among all tokens of an epoch's micro-batches."""
    batches = [batch for step in range(len(plan)) for batch in plan.micro_batches(0, step)]
    return 1 - sum(sum(plan.tokens[row]) for batch in batches for row in batch) / sum(map(plan.size, batches))


@pytest.mark.parametrize("name", ["examples_per_step", "max_tokens", "world_size"])
def test_refuses_numbers_below_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        plan(**{name: 0})


def test_packed_micro_batches_are_filled_to_the_budget_without_padding() -> None:
    """Sums count, not widths: 9 + 3, then 5 + 7; with padding the pair (9, 3) alone would take 18."""
    plan = StepPlan([(5, 7), (9, 3), (2,)], 3, 24, packed=True)
    assert sorted(map(sorted, plan.micro_batches(0, 0))) in ([[0, 1], [2]], [[0, 2], [1]])
    assert padding(plan) == 0.0
    assert StepPlan([(5, 7), (9, 3), (2,)], 3, 24).micro_batches(0, 0) == [[0, 2], [1]], "21 tokens before 18"


def test_what_micro_batches_have_in_common_is_counted_once_in_each() -> None:
    """20 in common and five rows of 10 are 70 tokens, with 100 keys of what is in common. 40 in common two rows share,
    as a third would make 120 keys of them; a single row may exceed everything."""
    rows = [(10,)] * 5
    plan = StepPlan(rows, 5, 100, packed=True, common=20)
    assert [len(batch) for batch in plan.micro_batches(0, 0)] == [5]
    assert plan.size([0, 1, 2]) == 50
    few = StepPlan(rows, 5, 100, packed=True, common=40).micro_batches(0, 0)
    assert max(map(len, few)) == 2
    assert len(few) == 3
    assert len(StepPlan(rows, 5, 30, packed=True, common=60).micro_batches(0, 0)) == 5
    for ranks in (2, 3):
        cut = StepPlan(rows, 5, 100, None, ranks, packed=True, common=20).micro_batches(0, 0)
        assert sorted(row for batch in cut for row in batch) == [0, 1, 2, 3, 4]


def every_cut(rows: list[int]) -> list[list[list[int]]]:
    """All ways to cut a list into runs."""
    if not rows:
        return [[]]
    return [[rows[:i], *rest] for i in range(1, len(rows) + 1) for rest in every_cut(rows[i:])]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_no_other_cut_costs_less(seed: int, packed: bool) -> None:
    """Against all 128 ways to cut eight rows of random lengths."""
    draw = random.Random(seed)
    tokens = [[draw.randint(1, 90) for _ in range(draw.randint(1, 3))] for _ in range(8)]
    p = StepPlan(tokens, 8, 400, packed=packed)

    def cost(cut: list[list[int]]) -> float:
        total = 0.0
        for batch in cut:
            lengths = [n for row in batch for n in tokens[row]]
            size = sum(lengths) if packed else len(lengths) * max(lengths)
            total += float("inf") if size > 400 and len(batch) > 1 else size + CALL_TOKENS["cpu"]
        return total

    ordered = sorted(range(8), key=lambda row: (-max(tokens[row]), row))
    found = p.micro_batches(0, 0)
    assert [p.size(batch) for batch in found] == sorted(map(p.size, found), reverse=True), "the largest comes first"
    assert [row for batch in sorted(found, key=lambda batch: ordered.index(batch[0])) for row in batch] == ordered
    assert cost(found) == min(cost(cut) for cut in every_cut(ordered))


def test_ranks_get_like_shares() -> None:
    """16 rows of 50 tokens would fill two micro-batches of 400; four ranks get four of four rows, and none is idle."""
    p = StepPlan([(50,)] * 16, 16, 400, world_size=4)
    assert [len(batch) for rank in range(4) for batch in p.for_rank(0, 0, rank)] == [4, 4, 4, 4]
    assert len(StepPlan([(50,)] * 16, 16, 400).micro_batches(0, 0)) == 2


@pytest.mark.parametrize(("examples", "max_tokens"), [(8, 640), (32, 2048), (128, 8192)])
@pytest.mark.parametrize(("name", "most"), [("padded", 0.10), ("shared_prompt", 0.10), ("packed", 0.02)])
def test_little_is_padded_on_the_quickstart_data(
    tokenizer: PreTrainedTokenizerBase, name: LayoutName, most: float, examples: int, max_tokens: int
) -> None:
    rows, _ = load_rows(str(ROOT / "data/quickstart/train_pairs.jsonl"), tokenizer)
    layout = LAYOUTS[name]
    lengths = layout.lengths_of(rows, (1, -1))
    assert padding(StepPlan(lengths, examples, max_tokens, seed=1, packed=layout.packed)) < most


@pytest.mark.parametrize(("ranks", "most"), [(1, 11), (8, 2), (16, 1)])
def test_a_gpu_gets_few_large_micro_batches(ranks: int, most: int) -> None:
    """128 pairs of a thousand tokens, as data have them: a launch of a kernel, or a collective, costs as much as they
    do. Where padding costs alone, a rank has 28, 4 and 2 of them."""
    draw = random.Random(0)
    rows = [(draw.randint(50, 500) + draw.randint(150, 600) + draw.randint(150, 600),) for _ in range(1024)]
    for lengths in (rows, [(1000,)] * 1024):
        p = StepPlan(lengths, 128, 16_384, 1, ranks, call_tokens=call_tokens_on("cuda"))
        assert max(len(p.for_rank(0, step, 0)) for step in range(8)) <= most
