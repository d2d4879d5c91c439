"""The loader's suite: what its steps hold, and what is stored of a run."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from lightning_bnf.costs.bench import loaders
from lightning_bnf.costs.bench.workers import Over

ROOT = Path(__file__).parents[3]


def test_a_turn_is_a_step_of_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps of two pairs each over three rows' two: the epoch begins anew."""

    class Turns:
        def __init__(self) -> None:
            self.measured: list[dict[str, float]] = []

        def wait(self) -> None:
            if len(self.measured) == 6:
                raise Over

        def done(self, **more: float) -> None:
            self.measured.append(more)

    monkeypatch.setattr(loaders, "ROWS", 3)
    monkeypatch.setattr(loaders, "PAIRS", 2)
    for (variant,) in zip(*loaders.variants()):
        turns: Any = Turns()
        with pytest.raises(Over):
            variant.contest(turns, **variant.arguments)
        assert [list(one) for one in turns.measured] == [["cpu_seconds"]] * 6


def test_its_rows_are_of_the_length_that_it_names() -> None:
    lengths = [len(row.prompt_ids) + len(c.ids) for row in loaders.rows() for c in row.completions]
    assert len(lengths) == 2 * loaders.ROWS
    assert statistics.mean(lengths) == pytest.approx(1000, rel=0.02)


def test_the_stored_run_made_a_step_in_under_25_ms_of_one_core() -> None:
    rows = json.loads((ROOT / "notebooks/results/bench/loader.json").read_text())["rows"]
    assert {row["variant"] for row in rows} == {"padded", "shared_prompt"}
    assert all(statistics.median(row["cpu_seconds"]) < 0.025 for row in rows)
