"""The step loader: what a step knows of itself, and where it goes on after a resume."""

from lightning_bnf.batch import Step
from lightning_bnf.datamodules.steps.layout import PADDED
from lightning_bnf.datamodules.steps.loader import PromptLoader, StepCounts, StepLoader
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow


def row(name: str, chosen: int, rejected: int, limit: int | None = None) -> TokenizedRow:
    completions = tuple(
        TokenizedCompletion([3] * n, [True] * n, label) for n, label in ((chosen, 1), (rejected, -1)) if n
    )
    kind = "paired" if chosen and rejected else "unpaired"
    return TokenizedRow(name, f"x:{name}", kind, [4, int(name)], completions, max_new_tokens=limit)


ROWS = [row(str(i), i + 1, 7 - i) for i in range(7)]


def loader(fixed: bool = False, world_size: int = 1, rank: int = 0) -> StepLoader:
    plan = StepPlan([PADDED.lengths(r, (1, -1)) for r in ROWS], 2, 20, None if fixed else 1, world_size)
    return StepLoader(ROWS, plan, PADDED, rank=rank, fixed=fixed)


def ids(step: Step) -> list[str]:
    return sorted({name for batch in step.micro_batches for name in batch.row_ids})


def test_facts_by_hand() -> None:
    """Chosen lengths 1 and 3, rejected 7 and 5, and one preferred completion of 2 tokens without a partner."""
    context = StepCounts([*ROWS, row("9", 2, 0)], (1, -1)).context([0, 2, 7])
    assert (context.pairs, context.preferred, context.dispreferred) == (2, 3, 2)
    assert (context.preferred_tokens, context.smallest_length) == (6, 1)
    assert context.groups == 3
    only = StepCounts([row("9", 0, 4), ROWS[1]], (1,)).context([0, 1])
    assert (only.pairs, only.preferred, only.dispreferred, only.smallest_length, only.groups) == (0, 1, 0, 2, 1)
    assert StepCounts([row("9", 0, 4)], (1,)).context([0]).smallest_length == 1, "as good as any, of none"


def test_resuming_goes_on_after_the_last_step_given_out() -> None:
    whole = [ids(step) for epoch in range(2) for step in [*loader()]]
    first = loader()
    whole = [ids(step) for step in first] + [ids(step) for step in first]
    assert whole[:4] != whole[4:], "another order every epoch"
    interrupted = loader()
    iterator = iter(interrupted)
    seen = [ids(next(iterator)) for _ in range(3)]
    state = interrupted.state_dict()
    assert state == {"consumed": 3}
    resumed = loader()
    resumed.load_state_dict(state)
    assert seen + [ids(step) for step in resumed] + [ids(step) for step in resumed] == whole


def test_a_fixed_loader_starts_over() -> None:
    fixed = loader(fixed=True)
    assert [ids(step) for step in fixed] == [ids(step) for step in fixed] == [["0", "1"], ["2", "3"], ["4", "5"], ["6"]]


def test_ranks_share_a_step_and_know_all_of_it() -> None:
    alone = loader()
    first, second = loader(world_size=2), loader(world_size=2, rank=1)
    for one, a, b in zip(alone, first, second):
        assert ids(one) == sorted(ids(a) + ids(b))
        assert one.context == a.context == b.context
        assert len(a.micro_batches) == len(b.micro_batches)


def test_prompts_come_once_and_grouped_by_their_limit() -> None:
    rows = [row("1", 1, 1, 8), row("2", 1, 1, 16), row("1", 2, 1, 8), row("3", 1, 1), row("4", 1, 1, 8)]
    batches = [[r.id for r in batch.rows] for batch in PromptLoader(rows, batch_size=2)]
    assert batches == [["3"], ["1", "4"], ["2"]]
    halves = [list(PromptLoader(rows, 1, rank, 2)) for rank in range(2)]
    assert sorted(r.id for half in halves for batch in half for r in batch.rows) == ["1", "2", "3", "4"]
