"""Scores with their intervals: a panel a measure, a row a model."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from lightning_bnf.judging.lines import Line
from lightning_bnf.results.style import CHOSEN, NEUTRAL, REJECTED, TYPE, sheet, styled

_LONGEST = 28  # characters of a model's name


def plot(lines: Sequence[Line]) -> Figure:
    """Of all benchmarks and judges; thick bars are intervals over questions, thin ones the published ones."""
    panels: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        panels.setdefault((line.benchmark, line.judge, line.measure), []).append(line)
    one_judge = len({line.judge for line in lines}) == 1
    rows = [len(held) for held in panels.values()]
    figure = sheet(0.4 + sum(0.85 + 0.3 * count for count in rows))
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": [1 + count for count in rows]})
    for (benchmark, judge, measure), ax in zip(panels, axes[:, 0], strict=True):
        held = sorted(panels[benchmark, judge, measure], key=lambda line: line.value)
        for place, line in enumerate(held):
            if line.published is not None:
                ax.plot(line.published, (place, place), color=NEUTRAL, linewidth=1, zorder=1)
            wide = {"linewidth": 4, "alpha": 0.55, "solid_capstyle": "butt"}  # which ends where the interval does
            ax.plot((line.low, line.high), (place, place), color=CHOSEN, zorder=2, **wide)
            ax.plot(line.value, place, "o", color=REJECTED, zorder=3)
        ax.set_yticks(range(len(held)), [_short(line.model) for line in held])
        ax.set_ylim(-0.6, len(held) - 0.4)
        styled(ax, f"{benchmark}: {measure}" + ("" if one_judge else f" ({_short(judge)})"), "", "")
        if "%" in measure:
            ax.axvline(50, color=NEUTRAL, linewidth=0.8, linestyle=":")
            ax.set_xlim(0, 100)
    if one_judge:
        figure.supxlabel(f"judged by {lines[0].judge}", fontsize=TYPE)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
