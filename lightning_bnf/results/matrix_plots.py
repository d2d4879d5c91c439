"""Figures of a matrix of runs: means with their intervals, and gain against tax."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lightning_bnf.results.style import NEUTRAL, TYPE, looks, sheet, styled

_ACROSS = 4


def plot_means(
    tidy: pd.DataFrame,
    unit: str = "share of n prompts, with its 95 % interval",
    reference: str | None = None,
    variants_of: str | None = None,
) -> Figure:
    """Means with their 95 % intervals, a panel for each metric and a line for each method; `tidy` as `matrix.means`.

    A dotted line goes through the mean of the method `reference`. Where all others are one method on other data, it is
    `variants_of`, and they have its colour.
    """
    metrics, methods = list(tidy["metric"].unique()), list(tidy["method"].unique())
    figure = sheet(1.3 + 0.26 * len(methods))
    look = looks(methods)
    if variants_of is not None:
        own_look = looks([variants_of])[variants_of]
        look = {name: look[name] if name == reference else own_look for name in methods}
    for axes, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics):
        own = tidy[tidy["metric"] == metric].set_index("method").loc[methods]
        styled(axes, f"{metric}\nn {own['n'].iloc[0]}", "", "")
        axes.hlines(range(len(methods)), own["low"], own["high"], color=NEUTRAL, linewidth=1.4)
        for place, method in enumerate(methods):
            axes.scatter(own.loc[method, "score"], place, zorder=3, **look[method].point())
        if reference is not None:
            axes.axvline(own.loc[reference, "score"], color=NEUTRAL, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(methods)), methods)
    figure.axes[0].invert_yaxis()  # shared by all panels
    figure.supxlabel(unit, fontsize=TYPE)
    return figure


def plot_tradeoff(runs: pd.DataFrame, gain: str, tax: str) -> Figure:
    """Gain against tax, `runs` as `matrix.tradeoff` gives them, a panel for each method in the order of its gain: small
    points are runs, hollow where their setting was not picked, the large one is the mean of the picked runs, and grey
    crosses are the other methods' means.

    Up is less tax, right is more gain; (0, 0) is the base. A run that gained less than nothing bears its learning rate.
    """
    means = runs[runs["picked"]].groupby("method")[[gain, tax]].mean().sort_values(gain, ascending=False)
    rows = -(-len(means) // _ACROSS)
    figure, look = sheet(0.8 + 1.9 * rows), looks(means.index)
    panels = figure.subplots(rows, _ACROSS, squeeze=False, sharex=True, sharey=True).flatten()
    for axes, method in zip(panels, means.index):
        styled(axes, method, "", "")
        axes.axhline(0, color=NEUTRAL, linewidth=0.8)
        axes.axvline(0, color=NEUTRAL, linewidth=0.8)
        others = means.drop(index=method)
        axes.scatter(others[gain], others[tax], s=16, color="#999999", marker="x", linewidths=0.8)
        axes.scatter(*means.loc[method], s=110, alpha=0.4, linewidths=0, **look[method].point())  # runs stay seen on it
        _runs(axes, runs[runs["method"] == method], gain, tax, look[method].color)
        axes.margins(0.08)
    for axes in panels[len(means) :]:
        axes.set_axis_off()
    figure.supxlabel(f"change of the pass rate, {gain}", fontsize=TYPE)
    figure.supylabel(f"change of the pass rate, {tax}", fontsize=TYPE)
    return figure


def _runs(axes: Any, own: pd.DataFrame, gain: str, tax: str, color: str) -> None:
    """A method's runs, and the learning rate of those that lie below the base."""
    kept = own["picked"]
    hollow = {"facecolors": "none", "edgecolors": color, "linewidths": 1.0}
    axes.scatter(own.loc[~kept, gain], own.loc[~kept, tax], s=22, zorder=3, **hollow)
    axes.scatter(own.loc[kept, gain], own.loc[kept, tax], s=22, linewidths=0, zorder=3, color=color)
    for run in own[own[gain] < 0].to_dict("records"):
        rate = np.format_float_scientific(run["learning rate"], trim="-", exp_digits=1)
        label = f"{run['method']}, {rate}"
        axes.annotate(label, (run[gain], run[tax]), (0, 6), textcoords="offset points", fontsize=TYPE)
