"""Run folders as tables, and the figures drawn of them."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lightning_bnf.plots import plot_logps, plot_loss, plot_weights
from lightning_bnf.results import read_metrics

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


def test_the_shift_has_a_panel_where_there_is_a_reference(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CSV)
    assert len(plot_logps(read_metrics(tmp_path)).axes) == 1
    (tmp_path / "metrics.csv").write_text(CSV.replace("logps_mean", "logratios_mean"))
    assert lines(plot_logps(read_metrics(tmp_path)), panel=1)["chosen, train (mean of 5 steps)"] == [-0.75, -0.75]


def test_the_weights_histogram_is_in_percent_of_tokens() -> None:
    figure = plot_weights({"first 5 steps": [1.0, 1.0, 1.0, 0.0]})
    (patch,) = figure.axes[0].patches
    assert max(y for _, y in patch.get_path().vertices) == pytest.approx(75.0)  # type: ignore[attr-defined]
