"""Figures of a matrix show every method and run."""

import pandas as pd

from lightning_bnf.results.matrix_plots import plot_means, plot_tradeoff
from lightning_bnf.results.style import NEUTRAL, looks

TIDY = pd.DataFrame(
    [("Base", 0.5, 0.4, 0.6), ("BNF", 0.75, 0.7, 0.8), ("25%", 1.0, 0.9, 1.1)],
    columns=["method", "score", "low", "high"],
).assign(metric="passes", n=120)


def test_means_have_their_intervals_and_colours() -> None:
    figure = plot_means(TIDY, reference="Base")
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "passes\nn 120"
    intervals, *points = axes.collections
    assert [tuple(point.get_offsets()[0]) for point in points] == [(0.5, 0), (0.75, 1), (1.0, 2)]
    ends = [[tuple(end) for end in segment] for segment in intervals.get_segments()]
    assert ends[1] == [(0.7, 1), (0.8, 1)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Base", "BNF", "25%"]
    assert axes.lines[0].get_xdata()[0] == 0.5


def test_variants_of_a_method_have_its_colour_and_the_base_none() -> None:
    def colors(**settings: str) -> list[tuple[float, ...]]:
        points = plot_means(TIDY, reference="Base", **settings).axes[0].collections[1:]
        return [tuple(point.get_facecolor()[0]) for point in points]

    base, bnf, quarter = colors(variants_of="BNF")
    assert bnf == quarter
    assert base != bnf
    assert colors()[2] != quarter
    assert looks(["Base"])["Base"].color == NEUTRAL


def test_gain_and_tax_have_a_panel_for_each_method() -> None:
    """In the order of what picked runs gain; a run below the base bears its rate."""
    runs = pd.DataFrame(
        [
            ("BNF", 1e-4, True, 0.1, 0.0),
            ("BNF", 1e-4, True, 0.3, 0.2),
            ("BNF", 8e-4, False, -0.2, -0.1),
            ("DPO", 2e-4, True, 0.5, 0.3),
        ],
        columns=["method", "learning rate", "picked", "instructions", "reasoning"],
    )
    panels = [axes for axes in plot_tradeoff(runs, "instructions", "reasoning").axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == ["DPO", "BNF"]
    others, mean, left, kept = panels[1].collections
    assert others.get_offsets().tolist() == [[0.5, 0.3]]
    assert mean.get_offsets().tolist() == [[0.2, 0.1]]
    assert left.get_offsets().tolist() == [[-0.2, -0.1]]
    assert kept.get_offsets().tolist() == [[0.1, 0.0], [0.3, 0.2]]
    assert [text.get_text() for text in panels[1].texts] == ["BNF, 8e-4"]
    assert not panels[0].texts
