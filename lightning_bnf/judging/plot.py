"""Scores with their intervals: a panel a measure, a row a model."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from lightning_bnf.judging.lines import Line
from lightning_bnf.results.plots import NEUTRAL, OKABE_ITO, NotebookFigure

_LONGEST = 28  # characters of a model's name


def plot(lines: Sequence[Line]) -> Figure:
    """Of all benchmarks and judges; thick bars are intervals over questions, thin ones the published ones."""
    panels: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        panels.setdefault((line.benchmark, line.judge, line.measure), []).append(line)
    rows = [len(held) for held in panels.values()]
    figure = NotebookFigure(figsize=(7.2, 0.6 + sum(0.95 + 0.3 * count for count in rows)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": [1 + count for count in rows]})
    for (benchmark, judge, measure), ax in zip(panels, axes[:, 0], strict=True):
        held = sorted(panels[benchmark, judge, measure], key=lambda line: line.value)
        for place, line in enumerate(held):
            if line.published is not None:
                ax.plot(line.published, (place, place), color=NEUTRAL, linewidth=1, zorder=1)
            ax.plot((line.low, line.high), (place, place), color=OKABE_ITO[1], linewidth=4, alpha=0.55, zorder=2)
            ax.plot(line.value, place, "o", color=OKABE_ITO[0], zorder=3)
        ax.set_yticks(range(len(held)), [_short(line.model) for line in held])
        ax.set_ylim(-0.6, len(held) - 0.4)
        ax.set_title(f"{benchmark}: {measure}, judged by {_short(judge)}", loc="left", fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, axis="x")
        if "%" in measure:
            ax.axvline(50, color=NEUTRAL, linewidth=0.8, linestyle=":")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
