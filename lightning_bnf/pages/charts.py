"""Curves as SVG that stands inside a page: its colours are the page's, light or dark, and its text is text."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

SMOOTH = 5  # points of a running mean
MOST_POINTS = 300
"""Of a line: a long run's steps are drawn as means of as many, so that a page stays small."""
_INK, _FAINT = "#010203", "#010204"
# Colours that stand for the page's: matplotlib writes them, the page's style sheet says what they are.
_COLOURS = {
    _INK: "currentColor",
    _FAINT: "var(--line)",
    "#010210": "var(--chosen)",
    "#010211": "var(--rejected)",
    **{f"#01022{i}": f"var(--run-{i})" for i in range(8)},
}
_NAMES = {"ink": _INK, "chosen": "#010210", "rejected": "#010211", **{f"run-{i}": f"#01022{i}" for i in range(8)}}
_MARKERS = {f"run-{i}": marker for i, marker in enumerate("os^DvPX*")}  # runs are told apart without colours too
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.0,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _FAINT,
    "axes.linewidth": 0.6,
}


@dataclass(frozen=True)
class Line:
    """A metric over steps; `validation` is drawn as points that a dashed line joins, else faint with its running mean.

    colour: `ink`, `chosen`, `rejected`, or `run-0` to `run-7`
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    colour: str = "ink"
    validation: bool = False


@dataclass(frozen=True)
class Point:
    """A run in a plane."""

    label: str
    x: float
    y: float
    colour: str


def curves(title: str, unit: str, lines: Sequence[Line], zero: bool = False, from_zero: bool = False) -> str:
    """A panel of metrics over optimizer steps; `zero` draws the line through 0, `from_zero` begins the axis there."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": title}):
        figure, axes = _panel(title, "optimizer step", unit)
        if zero:
            axes.axhline(0, color=_INK, linewidth=0.6)
        for line in lines:
            colour = _NAMES[line.colour]
            if line.validation:
                marker = _MARKERS.get(line.colour, "o")
                axes.plot(line.steps, line.values, f"{marker}--", color=colour, label=line.label, ms=4.5, lw=1)
            else:
                steps, values = thinned(line.steps), thinned(line.values)
                axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
                axes.plot(steps, running_mean(values), color=colour, linewidth=1.8, label=line.label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if from_zero:
            axes.set_ylim(bottom=0, top=1.1 * max(max(line.values) for line in lines) or 1)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize="small")
        return _svg(figure)


def frontier(title: str, x: str, y: str, points: Sequence[Point]) -> str:
    """Runs in a plane, each with its name beside its point; the lines cross where training began."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": title}):
        figure, axes = _panel(title, x, y)
        axes.axhline(0, color=_INK, linewidth=0.6)
        axes.axvline(0, color=_INK, linewidth=0.6)
        for i, point in enumerate(points):
            axes.plot([point.x], [point.y], _MARKERS.get(point.colour, "o"), color=_NAMES[point.colour], markersize=9)
            above = 4 + 12 * sum(_near(point, other, points) for other in points[:i])
            axes.annotate(point.label, (point.x, point.y), xytext=(8, above), textcoords="offset points", fontsize=9)
        axes.margins(0.22)
        return _svg(figure)


def _near(one: Point, other: Point, points: Sequence[Point]) -> bool:
    """Whether the names of two points would lie over each other."""
    wide, high = (max(values) - min(values) for values in ([0, *(p.x for p in points)], [0, *(p.y for p in points)]))
    return abs(one.x - other.x) <= wide / 4 and abs(one.y - other.y) <= high / 8


def thinned(values: Sequence[float]) -> list[float]:
    """At most `MOST_POINTS` values: means of equally many neighbours; the last of fewer."""
    size = -(-len(values) // MOST_POINTS)
    return [float(np.mean(values[i : i + size])) for i in range(0, len(values), size or 1)]


def running_mean(values: Sequence[float]) -> list[float]:
    """Of `SMOOTH` values around each; fewer at both ends."""
    half = SMOOTH // 2
    found = np.asarray(values, dtype=float)
    return [float(found[max(0, i - half) : i + half + 1].mean()) for i in range(len(found))]


def _panel(title: str, x: str, y: str) -> tuple[Figure, "mpl.axes.Axes"]:
    figure = Figure(figsize=(4.3, 2.7), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as an element, without what only files need: no declaration, no date, no size of its own."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', text, count=1)
    text = re.sub(r" font-family: [^;]*;", "", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would hold for the whole page
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # the same names in every figure
    for colour, name in _COLOURS.items():
        text = text.replace(colour, name)
    return text
