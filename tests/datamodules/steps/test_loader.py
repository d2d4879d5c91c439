"""The step loader: what a step knows of itself, and where it goes on after a resume."""

from threading import Event, Thread
from threading import enumerate as enumerate_threads

import pytest
from support import slow_rows as slow

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
    plan = StepPlan(PADDED.lengths_of(ROWS, (1, -1)), 2, 20, None if fixed else 1, world_size)
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


@pytest.mark.parametrize("labels", [(1, -1), (1,), (-1,)])
def test_facts_are_those_of_one_row_after_the_other(labels: tuple[int, ...]) -> None:
    rows = slow.some_rows(60)
    counts = StepCounts(rows, labels)
    for start in range(0, 60, 12):
        places = [*range(start, start + 12), start]  # one twice, as mixed sets may have it
        assert counts.context(places) == slow.context([rows[i] for i in places], labels)


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


class Watched(StepLoader):
    """Tells when a step is begun and waits with it until it is let go on; one of them fails."""

    def __init__(self, fails: int = -1) -> None:
        plan = StepPlan(PADDED.lengths_of(ROWS, (1, -1)), 2, 20, 1)
        super().__init__(ROWS, plan, PADDED)
        self.begun, self.let_go = [Event() for _ in range(4)], [Event() for _ in range(4)]
        self.fails = fails

    def step(self, epoch: int, step: int) -> Step:
        self.begun[step].set()
        assert self.let_go[step].wait(60)
        if step == self.fails:
            raise RuntimeError(f"step {step} is broken")
        return super().step(epoch, step)


def threads() -> list[Thread]:
    return [thread for thread in enumerate_threads() if thread.name.startswith("StepLoader")]


def test_a_step_is_made_while_the_one_before_it_is_used_and_none_further_ahead() -> None:
    """Step 1 is begun before step 0 is done with; it is not counted before it is given out, and step 2 not begun."""
    watched = Watched()
    steps = iter(watched)
    watched.let_go[0].set()
    assert ids(next(steps)) == ids(loader().step(0, 0))
    assert watched.begun[1].wait(60)
    watched.let_go[1].set()
    assert watched.state_dict() == {"consumed": 1}
    assert not watched.begun[2].is_set()
    assert ids(next(steps)) == ids(loader().step(0, 1))
    assert watched.begun[2].wait(60)
    assert watched.state_dict() == {"consumed": 2}
    watched.let_go[2].set()
    steps.close()  # type: ignore[attr-defined]
    assert not threads(), "an iteration that is given up leaves no thread"
    assert not watched.begun[3].is_set()
    resumed = loader()
    resumed.load_state_dict(watched.state_dict())
    assert ids(next(iter(resumed))) == ids(loader().step(0, 2))


def test_what_goes_wrong_with_a_step_is_raised_where_it_is_asked_for() -> None:
    watched = Watched(fails=1)
    steps = iter(watched)
    for event in watched.let_go:
        event.set()
    next(steps)
    assert watched.begun[1].wait(60)
    with pytest.raises(RuntimeError, match="step 1 is broken"):
        next(steps)
    assert watched.state_dict() == {"consumed": 1}
    assert not watched.begun[2].is_set()
    assert not threads()


def test_a_finished_iteration_leaves_no_thread() -> None:
    assert len(list(loader())) == 4
    assert not threads()


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
