"""What many rows of data take: of a first run, which tokenizes them, and of those after it."""

import pandas as pd
from matplotlib.figure import Figure

from lightning_bnf.results.style import CHOSEN, NEUTRAL, REJECTED, TYPE, key_below, sheet, styled

_TIMES = {
    "tokenized_cpu_seconds": ("first run, set up", REJECTED, "o-"),
    "until_first_step_cpu_seconds": ("run after it, until its first step", NEUTRAL, "^:"),
    "set_up_again_cpu_seconds": ("run after it, set up", CHOSEN, "s--"),
}
_MEMORY = {
    "tokenized_peak_gb": ("first run, set up", REJECTED, "o-"),
    "set_up_again_peak_gb": ("run after it, set up", CHOSEN, "s--"),
}


def plot_rows(rows: pd.DataFrame, bound: float = 2.0) -> Figure:
    """Processor time and peak memory against the number of pairs, of the columns of
    `notebooks/results/bench/rows.csv`; `bound`: GB that are not to be reached."""
    figure = sheet(3.4)
    times, memory = figure.subplots(1, 2)
    styled(times, "Processor time, all processes", "pairs", "seconds")
    styled(memory, "Peak memory, all processes", "pairs", "GB")
    for axes, columns in ((times, _TIMES), (memory, _MEMORY)):
        for column, (label, color, style) in columns.items():
            axes.plot(rows["pairs"], rows[column], style, color=color, label=label, markersize=5)
        axes.set_xscale("log")
    times.set_yscale("log")
    memory.axhline(bound, color=NEUTRAL, linewidth=0.8)
    memory.annotate(f"{bound:g} GB", (rows["pairs"].min(), bound), (0, 3), textcoords="offset points", fontsize=TYPE)
    memory.set_ylim(0, 1.15 * max(bound, rows[[*_MEMORY]].max().max()))
    key_below(figure, 3)
    return figure
