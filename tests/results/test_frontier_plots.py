"""Figures of the frontier: wide as a notebook, readable, each method in its own panel."""

import numpy as np
import pandas as pd
import pytest

from lightning_bnf.results.frontier_plots import (
    plot_flows,
    plot_frontier,
    plot_near_duplicates,
    plot_power,
    plot_tax,
)
from lightning_bnf.results.style import looks


def readable(figure) -> None:
    assert figure.get_figwidth() == pytest.approx(7.5)
    figure.draw_without_rendering()
    texts = [
        text
        for axes in figure.axes
        if axes.get_visible()
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels())
    ]
    assert all(text.get_fontsize() >= 9 for text in texts if text.get_text())


def test_each_method_has_a_panel_over_the_others_in_grey():
    """BNF with two rates of two seeds, DPO with one: four grey lines in all, and bars from seed to seed."""
    lines = [
        (method, rate, seed, share, measure, share * seed)
        for method, rates in (("BNF", (1e-4, 2e-4)), ("DPO", (1e-4,)))
        for rate in rates
        for seed in (1, 2)
        for share in (0.0, 0.5, 1.0)
        for measure in ("passes", "prose")
    ]
    points = pd.DataFrame(lines, columns=["method", "rate", "seed", "share", "measure", "value"])
    figure = plot_frontier(points, "prose")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == ["BNF, 2 seeds", "DPO, 2 seeds"]
    (bar, *_) = shown[0].containers
    assert bar.lines[0].get_xydata().tolist() == [[0, 0], [0.75, 0.75], [1.5, 1.5]]
    assert bar.lines[0].get_color() == looks(["BNF"])["BNF"].color
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["rate 1e-4", "rate 2e-4"]
    readable(figure)
    fewer = points[(points["rate"] == 1e-4) | (points["seed"] == 1)]
    cut = plot_frontier(fewer.assign(value=-fewer["value"]), "prose", lowest=-1.2)
    assert [axes.get_title(loc="left") for axes in cut.axes[:2]] == ["BNF, 1 to 2 seeds", "DPO, 2 seeds"]
    assert [[text.get_text() for text in axes.texts] for axes in cut.axes[:2]] == [["down to -1.50"]] * 2
    assert cut.axes[0].get_ylim()[0] == -1.2
    assert [text.get_text() for axes in plot_frontier(points, "prose", lowest=-1).axes[:2] for text in axes.texts] == []


def test_what_seeds_see_is_a_panel_for_each_measure():
    frame = pd.DataFrame({"exploring runs": {3: 0.1, 10: 0.05}, "confirming runs": {3: 0.08, 10: 0.04}})
    figure = plot_power({"prose": frame, "rank": frame})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["prose", "rank"]
    assert [line.get_xydata().tolist() for line in figure.axes[0].lines] == [
        [[3, 0.1], [10, 0.05]],
        [[3, 0.08], [10, 0.04]],
    ]
    readable(figure)


def test_differences_are_filled_where_they_are_sure():
    table = pd.DataFrame(
        [
            ("prose", "DPO", 0.2, 0.1, 0.3, 2.0, 0.01, 0.02),
            ("prose", "SFT", 0.1, -0.1, 0.3, 2.0, 0.3, 0.6),
            ("prose", "KTO", 0.1, *[np.nan] * 5),
        ],
        columns=["metric", "method", "difference", "low", "high", "df", "p", "corrected"],
    )
    figure = plot_tax(table, "BNF", ["prose"])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["BNF - DPO", "BNF - SFT", "BNF - KTO"]
    faces = [bar.lines[0].get_markerfacecolor() for bar in axes.containers]
    assert faces == [looks(["DPO"])["DPO"].color, "white", "white"]
    readable(figure)


def test_the_figures_of_notebook_9_are_readable():
    times = [0.1, 1.0, 10.0]
    flows = pd.DataFrame(
        [(kind, 1.0, time, -time) for kind in ("BNF", "DPO") for time in times],
        columns=["kind", "strength", "time", "moved"],
    )
    toy = pd.DataFrame(
        [("BNF", time, -time, -time, 0.0) for time in times], columns=["method", "time", "chosen", "rejected", "margin"]
    )
    for figure in (plot_flows(flows), plot_near_duplicates(toy)):
        readable(figure)
