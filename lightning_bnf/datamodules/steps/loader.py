"""The step loader: an iterable of whole optimizer steps that knows how many it has given out."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_bnf.batch import MicroBatch, Step
from lightning_bnf.datamodules.steps.layout import Layout
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.datamodules.tokens.columns import Ragged
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import as_rows
from lightning_bnf.losses.base import StepContext


class StepCounts:
    """What step contexts are summed from: the columns of the rows, so that no row is read for them again."""

    def __init__(self, rows: Sequence[TokenizedRow], labels: Sequence[int]):
        self.columns, self.labels = as_rows(rows).columns, labels

    def context(self, rows: Sequence[int]) -> StepContext:
        """What losses may know of a whole step of these rows."""
        step = self.columns.take(np.array(rows, dtype=np.int64))
        kept = step.has(self.labels)
        taken = Ragged(kept.astype(np.int64), step.first).sums() > 0
        preferred = kept & (step.label == 1)
        return StepContext(
            groups=int(taken.sum()),
            pairs=int(step.pairs.sum()) if set(self.labels) == {1, -1} else 0,
            preferred=int(preferred.sum()),
            dispreferred=int((kept & (step.label == -1)).sum()),
            preferred_tokens=int(step.trained[preferred].sum()),
            smallest_length=int(step.trained[kept].min()) if kept.any() else 1,
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
    rows again, for losses with a pass over mismatched completions. `device` is where the steps go: for a GPU they are
    laid out in pinned memory.
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
        device: torch.device | None = None,
    ):
        self.rows, self.plan, self.layout, self.labels = as_rows(rows), plan, layout, tuple(labels)
        self._counts = StepCounts(self.rows, self.labels)
        self.rank, self.fixed, self.mismatched, self.device = rank, fixed, mismatched, device
        self.consumed = 0

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Step]:
        if self.fixed:
            self.consumed = 0
        epoch, first = self.plan.place(self.consumed)
        steps = self.plan.of_epoch
        # A step is made while the one before it is trained on, and no further ahead. The thread ends with this
        # iteration, also where that is closed or forgotten before its end.
        with ThreadPoolExecutor(1, thread_name_prefix="StepLoader") as thread:
            ahead = thread.submit(self.step, epoch, first) if first < steps else None
            for step in range(first, steps):
                assert ahead is not None
                made = ahead.result()  # what went wrong with a step is raised where that step is asked for
                ahead = thread.submit(self.step, epoch, step + 1) if step + 1 < steps else None
                self.consumed += 1  # before giving it out: a checkpoint made after the step counts it
                yield made

    def step(self, epoch: int, step: int) -> Step:
        """This rank's part of one step."""
        made = self._laid_out(epoch, step)
        if self.device is None or self.device.type != "cuda":
            return made
        with torch.cuda.device(self.device):  # a new thread's own would be the first GPU
            return made.map(Tensor.pin_memory)

    def _laid_out(self, epoch: int, step: int) -> Step:
        return Step(
            micro_batches=self._micro_batches(Part(self.rows, self.plan), epoch, step),
            mismatched=self._micro_batches(self.mismatched, epoch, step) if self.mismatched else (),
            context=self._counts.context(self.plan.rows(epoch, step)),
        )

    def _micro_batches(self, part: Part, epoch: int, step: int) -> tuple[MicroBatch, ...]:
        batches = part.plan.for_rank(epoch, step, self.rank)
        rows = as_rows(part.rows)
        return tuple(self.layout.batch([rows.arrays(i) for i in batch], self.labels) for batch in batches)

    def state_dict(self) -> dict[str, Any]:
        """The position, in steps."""
        return {"consumed": self.consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after as many steps as were consumed then."""
        self.consumed = int(state["consumed"])
