"""How many rows an optimizer step takes where nobody says it."""

import pytest

from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.datamodules.steps.step_size import automatic_step_size


@pytest.mark.parametrize(
    ("rows", "size"),
    [(1, 4), (30, 4), (248, 4), (249, 8), (950, 16), (992, 16), (993, 32), (1000, 32), (3969, 128), (1_000_000, 128)],
)
def test_by_hand(rows: int, size: int) -> None:
    """249 rows are 31 steps of 8 and one of 1."""
    assert automatic_step_size(rows) == size


@pytest.mark.parametrize("rows", range(100, 5000, 37))
def test_at_least_32_steps_and_no_larger_one_would_leave_them(rows: int) -> None:
    size = automatic_step_size(rows)

    def steps(size: int) -> int:
        return len(StepPlan([(1,)] * rows, size, 100))

    assert size == 4 or steps(size) >= 32
    assert size == 128 or steps(2 * size) < 32
