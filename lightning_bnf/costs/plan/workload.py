"""What a run goes through: its steps, their tokens, and the largest micro-batch."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.tables import Table
from lightning_bnf.datamodules.steps.layout import LAYOUTS, Layout, LayoutName, layout_for
from lightning_bnf.datamodules.steps.plan import StepPlan, call_tokens_on, families_of
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.datamodules.tokens.rows import Rows, RowView, as_rows
from lightning_bnf.datamodules.tokens.stored import load_stored
from lightning_bnf.losses.base import Loss
from lightning_bnf.policies.base import Policy
from lightning_bnf.runtime.shipped import here_or_shipped
from lightning_bnf.training.fitting import preferred_layouts

KEYS_OF_A_TOKEN = 8
"""Keys that are there once more, of what prompts have in common, for the memory of one token: more where heads share
keys. For choosing which micro-batch is the largest; what that takes is then counted."""


@dataclass(frozen=True)
class Workload:
    """An epoch of a run on `devices`.

    batch: its largest micro-batch; layout: of all; accumulating: whether a device has several micro-batches in a step;
    rows, tokens, scored: of an epoch, tokens with padding, scored ones as the reference cache holds them; None where
    they are not known; assumed: what was taken for the lengths of the rows, for the report
    """

    batch: MicroBatch
    layout: str
    accumulating: bool
    rows: int | None
    tokens: int | None
    scored: int | None
    assumed: str

    @property
    def batch_tokens(self) -> int:
        """Tokens of the largest micro-batch, padding included."""
        return self.batch.inputs["input_ids"].numel()


def local_rows(data: PreferenceData, policy: Policy, loss: Loss) -> Sequence[TokenizedRow] | None:
    """The training rows where all files are local, tokenized as a run does it; None where something is a hub id."""
    sources = data.sources["train"]
    if not sources or not all(isinstance(found, Table) or here_or_shipped(found, "data").exists() for found in sources):
        return None
    parts = [load_stored(source, policy.tokenizer, data.options, policy.end_ids)[0] for source in sources]
    found, _ = data.selected("train", RowView(parts), loss)
    return found["train"].with_completions()


def of_rows(
    rows: Sequence[TokenizedRow],
    data: PreferenceData,
    loss: Loss,
    attention: str,
    reach: float,
    max_tokens: int,
    devices: int,
    device: str = "cpu",
) -> Workload:
    """The workload of rows that are there: the run's own step plan over them, on so many `devices` of a type.

    attention, reach: as `preferred_layouts` takes them
    """
    layout = layout_for(preferred_layouts(data.layout, attention, rows, loss.labels, reach)[0], rows)
    arrays = as_rows(rows)
    lengths = layout.lengths_of(arrays, loss.labels)
    mix = data.mix(rows)
    plan = StepPlan(
        lengths,
        data.step_size_for(len(rows) if mix is None else len(mix.sets)),
        max_tokens,
        data.seed,
        devices,
        layout.packed,
        call_tokens_on(device),
        families_of(rows) if data.stratify else None,
        mix,
        layout.common,
    )
    return of_plan(plan, arrays, layout, loss.labels, devices)


def of_plan(
    plan: StepPlan, rows: Rows, layout: Layout, labels: Sequence[int], devices: int, most_steps: int | None = None
) -> Workload:
    """The workload of a step plan over its rows; `most_steps`: of an epoch are looked at, evenly apart, and the others
    taken to be like them."""
    largest: tuple[int, int] = (0, 0)
    found: list[int] = []
    tokens, most = 0, 0
    count = min(len(plan), most_steps or len(plan))
    for step in (i * len(plan) // count for i in range(count)):
        batches = plan.micro_batches(0, step)
        most = max(most, -(-len(batches) // devices))
        for batch in batches:
            size, longest = plan.size(batch), max(length for row in batch for length in plan.tokens[row])
            tokens += size
            taken = size + plan.common * len(batch) // KEYS_OF_A_TOKEN
            if (taken, longest) > largest:
                largest, found = (taken, longest), batch
    return Workload(
        batch=layout.batch([rows.arrays(i) for i in found], labels),
        layout=layout.name,
        accumulating=most > 1,
        rows=plan.examples,
        tokens=tokens * len(plan) // max(count, 1),
        scored=int(rows.columns.trained.sum()),
        assumed="the rows of data.train",
    )


def of_budget(
    data: PreferenceData,
    loss: Loss,
    max_tokens: int,
    devices: int,
    rows: int | None,
    tokens_per_row: float | None,
) -> Workload:
    """The workload of rows that are not there: a micro-batch filled to the brim, by rows as long as is allowed.

    Every token but the first of a row is scored, which is the most that can be.
    """
    longest = min(max_tokens, data.options.max_length)
    count = max(1, max_tokens // longest)
    half = longest // 2
    each = (TokenizedCompletion([0] * half, [True] * half, loss.labels[0]),)
    made = [TokenizedRow(str(i), "", "unpaired", [0] * (longest - half), each) for i in range(count)]
    name: LayoutName = "padded" if data.layout == "auto" else data.layout
    tokens = None if rows is None or tokens_per_row is None else round(rows * tokens_per_row)
    step_tokens = None if tokens_per_row is None else data.step_size_for(rows) * tokens_per_row
    return Workload(
        batch=LAYOUTS[name].batch(made, loss.labels),
        layout=name,
        accumulating=step_tokens is None or step_tokens > max_tokens * devices,
        rows=rows,
        tokens=tokens,
        scored=tokens,
        assumed=f"{count} rows of {longest} tokens, the longest that data.options.max_length allows",
    )
