"""The suite of the command line: a turn is one start of Python, and a failure is no measurement."""

import json
import statistics
import time
from pathlib import Path

import pytest

from lightning_bnf.costs.bench.startup import typed, variants
from lightning_bnf.costs.bench.workers import Over, Turns


class Two(Turns):
    """Two turns in this process, and what was told at their ends."""

    def __init__(self) -> None:
        self.left = 2
        self.told: list[dict[str, float]] = []

    def wait(self) -> None:
        if not self.left:
            raise Over
        self.left -= 1
        self.started = time.perf_counter()

    def done(self, **more: float) -> None:
        self.told.append({"seconds": time.perf_counter() - self.started, **more})


def test_a_turn_is_one_start_of_python() -> None:
    turns = Two()
    with pytest.raises(Over):
        typed(turns, ["-c", "print('begun', flush=True); import time; time.sleep(0.3)"], 0)
    assert len(turns.told) == 2
    for turn in turns.told:
        assert turn["first_line_seconds"] <= turn["seconds"]
        assert turn["seconds"] >= 0.3
        assert turn["cpu_seconds"] > 0
        assert turn["peak_bytes"] > 10**6


def test_another_status_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="ended with 3: no luck"):
        typed(Two(), ["-c", "import sys; print('no luck'); sys.exit(3)"], 0)


def test_ours_is_measured_beside_stock() -> None:
    """The first of a group is what the others are in units of."""
    fit, overview = variants()
    assert fit[0].name.startswith("LightningCLI")
    assert fit[1].arguments["words"][-2:] == ["fit", "--help"] == fit[0].arguments["words"][-2:]
    assert [variant.arguments["status"] for variant in (*fit, *overview)] == [0, 0, 2, 0, 0, 2]


def test_what_is_stored_says_what_is_claimed() -> None:
    """The help of `fit` against stock's, turn about in one run; what is known before the imports in under a second."""
    stored = Path(__file__).parents[3] / "notebooks/results/bench/cli.json"
    seconds = {row["variant"]: statistics.median(row["seconds"]) for row in json.loads(stored.read_text())["rows"]}
    stock = seconds["LightningCLI with a demo model: fit --help"]
    assert seconds["fit --help"] < 1.15 * stock
    assert seconds["fit, a mistyped field"] < 1.15 * seconds["fit --help"]
    assert max(seconds["--help"], seconds["a mistyped command"]) < 1
