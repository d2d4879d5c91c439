"""Run folders as tables, and the figures drawn of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from lightning_bnf.results.plots import plot_displacement, plot_logps, plot_loss, plot_weights
from lightning_bnf.results.tables import bench_table, displacement, displacement_table, read_bench, read_metrics

CSV = """epoch,step,train/loss,train/logps_mean/chosen,val/loss,val/logps_mean/chosen
0,0,2.5,-1.0,,
0,1,1.5,-0.5,,
0,1,,,2.0,-0.75
"""


def test_metrics_become_a_tidy_table(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CSV)
    table = read_metrics(tmp_path)
    assert list(table.columns) == ["step", "split", "metric", "value"]
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        (0, "train", "logps_mean/chosen", -1.0),
        (1, "train", "logps_mean/chosen", -0.5),
        (1, "val", "logps_mean/chosen", -0.75),
        (0, "train", "loss", 2.5),
        (1, "train", "loss", 1.5),
        (1, "val", "loss", 2.0),
    ]


def test_a_folder_without_metrics_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no metrics\.csv"):
        read_metrics(tmp_path)


def lines(figure: Figure, panel: int = 0) -> dict[str, list[float]]:
    return {str(line.get_label()): list(line.get_ydata()) for line in figure.axes[panel].get_lines()}  # type: ignore[arg-type]


def test_plots_show_the_numbers(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CSV)
    metrics = read_metrics(tmp_path)
    shown = lines(plot_loss(metrics))
    assert shown["train (mean of 5 steps)"] == [2.0, 2.0]
    assert shown["validation"] == [2.0]
    assert [2.5, 1.5] in shown.values(), "the steps themselves are there too"
    shown = lines(plot_logps(metrics))
    assert shown["chosen, validation"] == [-0.75]
    assert "rejected, validation" not in shown, "an absent class is absent"


def test_steps_are_whole_numbers(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CSV)
    ticks = plot_loss(read_metrics(tmp_path)).axes[0].get_xticks()
    assert len(ticks) >= 2
    assert all(float(tick).is_integer() for tick in ticks)


def test_the_shift_has_a_panel_where_there_is_a_reference(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CSV)
    assert len(plot_logps(read_metrics(tmp_path)).axes) == 1
    (tmp_path / "metrics.csv").write_text(CSV.replace("logps_mean", "logratios_mean"))
    assert lines(plot_logps(read_metrics(tmp_path)), panel=1)["chosen, train (mean of 5 steps)"] == [-0.75, -0.75]


def test_the_weights_histogram_is_in_percent_of_tokens() -> None:
    figure = plot_weights({"first 5 steps": [1.0, 1.0, 1.0, 0.0]})
    (patch,) = figure.axes[0].patches
    assert max(y for _, y in patch.get_path().vertices) == pytest.approx(75.0)  # type: ignore[attr-defined]


def collapse_records() -> list[dict[str, Any]]:
    """Two methods, two seeds: chosen 0 -> -1 and 0 -> -3 under one, no change under the other."""

    def record(method: str, seed: int, fall: float, alarms: dict[str, str]) -> dict[str, Any]:
        measured = [{"step": 0, "chosen": -1.0, "held_out": -4.0}, {"step": 2, "chosen": -1.0 - fall, "held_out": -4.5}]
        return {"method": method, "seed": seed, "results": {"displacement": {"measured": measured, "alarms": alarms}}}

    alarm = {"held_out": "step 2: held-out text has lost 0.50 nats"}
    return [record("a", 1, 1.0, alarm), record("a", 2, 3.0, {}), record("b", 1, 0.0, {}), record("b", 2, 0.0, {})]


def test_displacement_is_the_change_since_the_start() -> None:
    changes = displacement(collapse_records())
    assert set(changes.columns) == {"method", "seed", "step", "kind", "change"}
    last = changes[(changes["step"] == 2) & (changes["kind"] == "chosen")].set_index(["method", "seed"])["change"]
    assert last.to_dict() == {("a", 1): -1.0, ("a", 2): -3.0, ("b", 1): 0.0, ("b", 2): 0.0}
    assert (changes[changes["step"] == 0]["change"] == 0).all()


def test_the_table_of_displacement_gives_means_seeds_and_alarms() -> None:
    table = displacement_table(collapse_records())
    assert table.loc["a", "chosen"] == -2.0
    assert table.loc["a", "chosen, each seed"] == "-1.00, -3.00"
    assert table.loc["a", "alarm: held-out (steps)"] == "2, -"
    assert table.loc["b", "alarm: both fall (steps)"] == "-, -"


def test_the_figure_of_displacement_has_a_panel_a_kind_and_a_line_a_run() -> None:
    figure = plot_displacement(displacement(collapse_records()), {"held_out": -0.1})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Chosen", "Rejected", "Held-out text"]
    assert len(figure.axes[0].lines) == 2 * 3 + 1  # two seeds and a mean each, and zero
    assert len(figure.axes[2].lines) == 2 * 3 + 2


def test_bench_results_become_a_table(tmp_path: Path) -> None:
    """Medians 2 and 3 seconds: the second variant takes 1.5 times the first of its case."""
    rows = [
        {"suite": "step", "case": "c", "variant": name, "seconds": seconds, "peak_bytes": 2_500_000_000}
        for name, seconds in (("sft", [1.0, 2.0, 9.0]), ("bnf", [3.0, 3.0, 1.0]))
    ]
    (tmp_path / "step.json").write_text(json.dumps({"machine": "two cores", "rows": rows}))
    (tmp_path / "head.json").write_text(json.dumps({"machine": "m", "rows": [rows[0] | {"suite": "head"}]}))
    table = bench_table(read_bench(tmp_path, ["step"]))
    assert table.loc[("step", "c", "bnf")].to_dict() == {
        "turns": 3,
        "median (s)": 3.0,
        "ratio": 1.5,
        "peak (GB)": 2.5,
        "machine": "two cores",
    }
    assert len(table) == 2
    assert len(read_bench(tmp_path)) == 3
    with pytest.raises(ValueError, match=r"suite 'peers': accepted are those measured in .*: head, step"):
        read_bench(tmp_path, ["peers"])
