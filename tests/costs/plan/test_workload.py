"""The heaviest micro-batch of a run, from its rows or from its budget."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from support.planned_runs import a_run

from lightning_bnf.costs.plan.run import assess
from lightning_bnf.costs.plan.workload import of_budget
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF, DPO, SFT, Loss, Sum, Term

pytestmark = pytest.mark.slow


def test_the_workload_is_that_of_the_runs_own_steps(tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    """All rows of a step fit into one micro-batch. A budget of one token makes a micro-batch of every row."""
    run = a_run(tiny_folder, write_pairs(rows=10))
    work = run.workload()
    assert (work.rows, work.layout, work.accumulating) == (10, "packed_shared", False)
    assert work.batch.sequences is not None
    assert len(work.batch.sequences.documents) == 6, "the system prompt, and a step's rows"
    assert work.batch_tokens <= work.tokens <= 2 * work.batch_tokens
    assert work.scored == sum(sum(c.completion_mask) for row in run.rows for c in row.completions)
    single = replace(run, max_tokens=1).workload()
    assert single.accumulating
    assert single.batch.sequences is not None
    assert len(single.batch.sequences.documents) == 2
    common = work.batch.sequences.documents[0].prompt
    assert common > 20
    assert single.tokens == work.tokens + (10 - 2) * common, "in two micro-batches, and in ten: nothing is padded"


def test_a_sum_of_token_losses_is_planned_on_the_fused_path(tiny_folder: str) -> None:
    def planned(*losses: Loss) -> bool:
        run = a_run(tiny_folder, loss=Sum([Term(loss) for loss in losses]), max_tokens=64, reference="cache")
        return assess(run).setting.token_loss

    assert planned(BNF(), SFT())
    assert not planned(BNF(), DPO())


def test_without_rows_the_budget_is_filled() -> None:
    """8192 tokens in rows of at most 4096: two of them; 12 rows of 100 tokens are below that."""
    data = PreferenceData(examples_per_step=12, max_tokens=8192)
    work = of_budget(data, BNF(), 8192, 2, rows=100, tokens_per_row=100.0)
    assert tuple(work.batch.inputs["input_ids"].shape) == (2, 4096)
    assert (work.rows, work.tokens, work.accumulating) == (100, 10_000, False)
    assert of_budget(data, BNF(), 8192, 1, None, None).accumulating
