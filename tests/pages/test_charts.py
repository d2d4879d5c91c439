"""Curves for a page: its colours, its text, and nothing that a browser would fetch."""

import re

from lightning_bnf.pages.charts import MOST_POINTS, Line, Point, curves, frontier, running_mean, thinned


def test_a_figure_takes_the_pages_colours_and_leaves_names_as_text() -> None:
    lines = [Line("chosen", [1, 2], [0, 1], "chosen"), Line("$x$ <b>", [1, 2], [1, 0], "rejected", validation=True)]
    svg = curves("Margin & <more>", "nats", lines, zero=True)
    assert svg.startswith('<svg viewBox="0 0 309.6 194.4" role="img">')
    assert "var(--chosen)" in svg
    assert "var(--rejected)" in svg
    assert "currentColor" in svg
    assert "Margin &amp; &lt;more&gt;" in svg
    assert "$x$ &lt;b&gt;" in svg
    assert not re.search(r"#0102|https?:|<style|<metadata|font-family| id=\"figure", svg)


def test_the_same_numbers_give_the_same_figure() -> None:
    line = Line("a", [1, 2, 3], [1.0, 2.0, 4.0], "run-0")
    assert curves("t", "u", [line], from_zero=True) == curves("t", "u", [line], from_zero=True)


def test_a_point_for_each_run() -> None:
    svg = frontier("Frontier", "x", "y", [Point("one", -1, 2, "run-0"), Point("two", 0, 0, "run-1")])
    assert "var(--run-0)" in svg
    assert "var(--run-1)" in svg
    assert ">one</text>" in svg


def test_names_of_runs_do_not_lie_over_each_other() -> None:
    svg = frontier("Frontier", "x", "y", [Point(name, 1, 1, f"run-{i}") for i, name in enumerate(("one", "two"))])
    places = re.findall(
        r'y="([\d.]+)"[^>]*>(?:one|two)</text>|translate\([\d.]+ ([\d.]+)\)[^>]*>(?:one|two)</text>', svg
    )
    heights = sorted(float(a or b) for a, b in places)
    assert heights[1] - heights[0] >= 9


def test_running_mean_by_hand() -> None:
    assert running_mean([0, 3, 6, 9, 12, 15]) == [3, 4.5, 6, 9, 10.5, 12]
    assert running_mean([]) == []


def test_a_long_run_is_drawn_in_means() -> None:
    assert thinned([1, 2, 4]) == [1, 2, 4]
    assert thinned([]) == []
    found = thinned(range(2 * MOST_POINTS + 1))
    assert len(found) <= MOST_POINTS
    assert found[0] == 1  # of 0, 1 and 2
    long = Line("a", range(100_000), [i % 7 for i in range(100_000)])
    assert len(curves("t", "u", [long])) < 60_000
