"""The figure of many rows shows the numbers that are stored."""

from pathlib import Path

import pandas as pd
import pytest

from lightning_bnf.results.row_plots import plot_rows

STORED = Path(__file__).parents[2] / "notebooks/results/bench/rows.csv"


def test_each_column_is_a_line_against_the_pairs() -> None:
    rows = pd.read_csv(STORED)
    times, memory = plot_rows(rows, bound=1.5).axes
    for axes, names in (
        (times, ["tokenized_cpu_seconds", "until_first_step_cpu_seconds", "set_up_again_cpu_seconds"]),
        (memory, ["tokenized_peak_gb", "set_up_again_peak_gb"]),
    ):
        lines = axes.get_lines()[: len(names)]
        assert [list(line.get_ydata()) for line in lines] == [rows[name].tolist() for name in names]
        assert all(list(line.get_xdata()) == rows["pairs"].tolist() for line in lines)
    assert list(memory.get_lines()[-1].get_ydata()) == [1.5, 1.5]
    assert memory.get_ylim()[0] == 0


def test_what_is_stored_is_linear_and_within_its_bounds() -> None:
    """Ten times the pairs take ten times the time, within a fifth; under 2 GB; set up again in under 3 s."""
    rows = pd.read_csv(STORED).set_index("pairs")
    seconds = rows["tokenized_cpu_seconds"]
    assert list(rows.index) == [10_000, 100_000, 1_000_000]
    assert seconds[1_000_000] / seconds[100_000] == pytest.approx(10, rel=0.2)
    assert seconds[100_000] / seconds[10_000] == pytest.approx(10, rel=0.2)
    assert rows["tokenized_peak_gb"].max() < 2
    assert rows["set_up_again_cpu_seconds"].max() < 3
