"""Figures show the numbers."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from support.run_folders import CSV, collapse_records

from lightning_bnf.results.plots import (
    Line,
    plot_bench,
    plot_displacement,
    plot_families,
    plot_logps,
    plot_loss,
    plot_weights,
    scaling_line,
)
from lightning_bnf.results.tables import displacement, read_metrics


def test_scaling_is_drawn_against_tokens() -> None:
    """Medians of each case's turns, with the line through them."""
    rows = [
        {"suite": "scaling", "case": "c", "variant": str(n), "tokens": [n, n, 9 * n], "peak_bytes": 10**9}
        | {"seconds": [2 + 0.003 * n, 2 + 0.003 * n, 99.0]}
        for n in (1000, 2000, 8000)
    ]
    assert scaling_line([*rows, rows[0] | {"suite": "step", "seconds": [1.0]}]).misses == pytest.approx(0, abs=1e-9)
    left, right = plot_bench(rows).axes
    assert left.get_legend().get_texts()[0].get_text().startswith("2.00 s + 3.00 ms a token")
    assert left.get_xlabel() == right.get_xlabel() == "tokens a step"


def lines(figure: Figure, panel: int = 0) -> dict[str, list[float]]:
    return {str(line.get_label()): list(line.get_ydata()) for line in figure.axes[panel].get_lines()}  # type: ignore[arg-type]


def test_plots_show_the_numbers(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CSV)
    metrics = read_metrics(tmp_path)
    shown = lines(plot_loss(metrics))
    assert shown["train"] == [2.5, 1.5], "of a few steps themselves: their running mean would be level"
    assert shown["validation"] == [2.0]
    shown = lines(plot_logps(metrics))
    assert shown["chosen, validation"] == [-0.75]
    assert "rejected, validation" not in shown, "an absent class is absent"


def test_ten_steps_have_their_running_mean(tmp_path: Path) -> None:
    head = CSV.splitlines()[0].split(",")
    rows = [",".join(str({"step": i, "train/loss": float(i)}.get(name, "")) for name in head) for i in range(10)]
    (tmp_path / "metrics.csv").write_text("\n".join([",".join(head), *rows]) + "\n")
    shown = lines(plot_loss(read_metrics(tmp_path)))
    assert shown["train (mean of 5 steps)"] == [1.0, 1.5, *range(2, 8), 7.5, 8.0]
    assert list(range(10)) in shown.values(), "the steps themselves are there too"


def test_the_loss_of_detached_weights_is_explained(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CSV)
    said = {
        name: [text.get_text() for text in plot_loss(read_metrics(tmp_path), name).axes[0].texts]
        for name in ("BNF", "DPO")
    }
    assert "its value may rise in a run that goes well" in said["BNF"][0]
    assert said["DPO"] == []


def test_steps_are_whole_numbers(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CSV)
    ticks = plot_loss(read_metrics(tmp_path)).axes[0].get_xticks()
    assert len(ticks) >= 2
    assert all(float(tick).is_integer() for tick in ticks)


def test_the_shift_has_a_panel_where_there_is_a_reference(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CSV)
    assert len(plot_logps(read_metrics(tmp_path)).axes) == 1
    (tmp_path / "metrics.csv").write_text(CSV.replace("logps_mean", "logratios_mean"))
    assert lines(plot_logps(read_metrics(tmp_path)), panel=1)["chosen, train"] == [-1.0, -0.5]


def test_the_weights_histogram_is_in_percent_of_tokens() -> None:
    figure = plot_weights({"first 5 steps": [1.0, 1.0, 1.0, 0.0]})
    (patch,) = figure.axes[0].patches
    assert max(y for _, y in patch.get_path().vertices) == pytest.approx(75.0)  # type: ignore[attr-defined]


def test_the_figure_of_displacement_has_a_panel_a_kind_and_a_line_a_run() -> None:
    changes = displacement(collapse_records())
    figure = plot_displacement(changes, {"held_out": -0.1})
    assert figure.axes[0].get_yscale() == "linear"
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Chosen", "Rejected", "Held-out text"]
    assert len(figure.axes[0].lines) == 2 * 3 + 1  # two seeds and a mean each, and zero
    assert len(figure.axes[2].lines) == 2 * 3 + 2


def test_what_collapses_is_on_a_logarithmic_axis() -> None:
    """Falls by 3 nats become ones by 24."""
    changes = displacement(collapse_records()).assign(change=lambda table: 8 * table["change"])
    figure = plot_displacement(changes, {})
    assert figure.axes[0].get_yscale() == "symlog"
    lowest, second = figure.axes[0].get_yticks()[:2]
    assert lowest <= changes["change"].min() < second, "no room for what is not there"


def test_the_line_of_scaling() -> None:
    """2 s and 3 ms a token; a fourth time that is a third too long pulls the line, and is missed by most."""
    line = Line.through([1000, 2000, 8000], [5.0, 8.0, 26.0])
    assert (line.fixed, line.per_token) == (pytest.approx(2), pytest.approx(0.003))
    assert line.misses == pytest.approx(0, abs=1e-9)
    assert str(line) == "2.00 s + 3.00 ms a token (misses by 0.0 % at most)"
    tokens, seconds = [1000.0, 2000.0, 4000.0, 8000.0], [5.0, 8.0, 14 * 4 / 3, 26.0]
    found = Line.through(tokens, seconds)

    def errors(fixed: float, per_token: float) -> list[float]:
        return [(fixed + per_token * x) / y - 1 for x, y in zip(tokens, seconds)]

    best = sum(error**2 for error in errors(found.fixed, found.per_token))
    for fixed, slope in ((0.01, 0.0), (-0.01, 0.0), (0.0, 1e-5), (0.0, -1e-5)):
        assert sum(error**2 for error in errors(found.fixed + fixed, found.per_token + slope)) > best
    assert found.misses == pytest.approx(max(map(abs, errors(found.fixed, found.per_token))))
    with pytest.raises(ValueError, match=r"tokens and seconds must be three points or more"):
        Line.through([1.0, 2.0], [1.0, 2.0])


def test_the_map_of_families_says_every_rate() -> None:
    index = pd.MultiIndex.from_tuples([("trained", "sums"), ("trained", "lists"), ("kept-out", "capitals")])
    rates = pd.DataFrame({"n": [4, 4, 2], "constant": [0, 0.5, 0], "place": [0.25, 0, 0], "BNF": [1, 0.75, 0.5]}, index)
    axes, bar = plot_families(rates).axes
    assert bar.get_ylabel() == "share of prompts that pass"
    cells = [text.get_text() for text in axes.texts]
    assert cells == ["0.00", "0.25", "1.00", "0.50", "0.00", "0.75", "0.00", "0.00", "0.50"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sums", "lists", "capitals"]
    across, down = axes.lines
    assert list(across.get_ydata()) == [1.5, 1.5], "between trained families and those kept out"
    assert list(down.get_xdata()) == [1.5, 1.5], "between the baselines and the methods"
