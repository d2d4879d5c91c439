"""The step loader: an iterable of whole optimizer steps that knows how many it has given out."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lightning_bnf.batch import MicroBatch, Step
from lightning_bnf.datamodules.steps.layout import Layout
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.losses.base import StepContext


def step_context(rows: Sequence[TokenizedRow], labels: Sequence[int]) -> StepContext:
    """What losses may know of a whole step, counted over all its rows."""
    by_label: dict[int, list[int]] = {1: [], -1: []}
    for row in rows:
        for completion in row.completions:
            if completion.label in labels:
                by_label[completion.label].append(sum(completion.completion_mask))
    return StepContext(
        groups=sum(any(completion.label in labels for completion in row.completions) for row in rows),
        pairs=sum(row.pairs for row in rows) if set(labels) == {1, -1} else 0,
        preferred=len(by_label[1]),
        dispreferred=len(by_label[-1]),
        preferred_tokens=sum(by_label[1]),
        smallest_length=min(by_label[1] + by_label[-1], default=1),
    )


class PromptBatch:
    """Prompts to complete together: all with the same limit of new tokens. No dataclass, as `Step` is none."""

    def __init__(self, rows: tuple[TokenizedRow, ...]):
        self.rows = rows

    def to(self, *args: Any, **kwargs: Any) -> "PromptBatch":
        """Itself: ids become tensors where they are generated from."""
        return self


class PromptLoader:
    """Every prompt once, grouped by its own `max_new_tokens`, in batches; every `world_size`-th of them for a rank."""

    def __init__(self, rows: Sequence[TokenizedRow], batch_size: int, rank: int = 0, world_size: int = 1):
        unique = list({tuple(row.prompt_ids): row for row in rows}.values())
        batches = []
        for limit in sorted({row.max_new_tokens or 0 for row in unique}):
            alike = [row for row in unique if (row.max_new_tokens or 0) == limit]
            batches += [PromptBatch(tuple(alike[i : i + batch_size])) for i in range(0, len(alike), batch_size)]
        self.batches = batches[rank::world_size]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PromptBatch]:
        return iter(self.batches)


class Part(NamedTuple):
    """Rows with the plan of the steps over them."""

    rows: Sequence[TokenizedRow]
    plan: StepPlan


class StepLoader:
    """Gives out one `Step` at a time; `consumed` steps were given out since the run began.

    Iterating goes on where the last iteration stopped, so after a resume in the middle of an epoch no row is seen
    twice. With `fixed`, every iteration starts at the first step: for validation and test. `mismatched` are as many
    rows again, for losses with a pass over mismatched completions.
    """

    def __init__(
        self,
        rows: Sequence[TokenizedRow],
        plan: StepPlan,
        layout: Layout,
        labels: Sequence[int] = (1, -1),
        rank: int = 0,
        fixed: bool = False,
        mismatched: Part | None = None,
    ):
        self.rows, self.plan, self.layout, self.labels = rows, plan, layout, tuple(labels)
        self.rank, self.fixed, self.mismatched = rank, fixed, mismatched
        self.consumed = 0

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Step]:
        if self.fixed:
            self.consumed = 0
        epoch, first = divmod(self.consumed, max(len(self), 1))
        for step in range(first, len(self)):
            self.consumed += 1  # before giving it out: a checkpoint made after the step counts it
            yield self.step(epoch, step)

    def step(self, epoch: int, step: int) -> Step:
        """This rank's part of one step."""
        return Step(
            micro_batches=self._micro_batches(Part(self.rows, self.plan), epoch, step),
            mismatched=self._micro_batches(self.mismatched, epoch, step) if self.mismatched else (),
            context=step_context([self.rows[i] for i in self.plan.rows(epoch, step)], self.labels),
        )

    def _micro_batches(self, part: Part, epoch: int, step: int) -> tuple[MicroBatch, ...]:
        batches = part.plan.for_rank(epoch, step, self.rank)
        return tuple(self.layout.batch([part.rows[i] for i in batch], self.labels) for batch in batches)

    def state_dict(self) -> dict[str, Any]:
        """The position, in steps."""
        return {"consumed": self.consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after as many steps as were consumed then."""
        self.consumed = int(state["consumed"])
