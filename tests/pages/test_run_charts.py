"""Which curves a run has."""

from pathlib import Path

from support.page_runs import write_run

from lightning_bnf.pages.measures import measures
from lightning_bnf.pages.run_charts import run_charts
from lightning_bnf.pages.run_folder import Run, read_run

TITLES = (
    "Margin",
    "Margin gained since the start",
    "Accuracy",
    "Shift from the reference",
    "Shift since the start",
    "BNF's loss",
    "Throughput",
    "Memory",
)


def titles(run: Run) -> list[str]:
    at = {name: measures(run.rows, found, run.snapshots.get("start")) for name, found in run.snapshots.items()}
    text = "".join(run_charts(run, at))
    return [title for title in TITLES if f">{title}</text>" in text]


def test_a_loss_with_a_reference(tmp_path: Path) -> None:
    wanted = ["Margin", "Accuracy", "Shift from the reference", "BNF's loss", "Throughput", "Memory"]
    assert titles(read_run(write_run(tmp_path / "run"))) == wanted


def test_a_loss_without_a_reference_takes_the_shown_rows(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "metrics.csv").write_text("epoch,step,train/loss\n0,0,0.5\n0,1,0.25\n")
    wanted = ["Margin gained since the start", "Shift since the start", "BNF's loss", "Throughput", "Memory"]
    assert titles(read_run(folder)) == wanted


def test_a_run_that_has_measured_nothing_has_none(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}\n")
    assert titles(read_run(tmp_path)) == []
