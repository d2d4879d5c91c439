"""metrics.csv over resumptions: rows before the resumed step stay, those after it are measured again."""

from pathlib import Path

from lightning_bnf.callbacks import RunLogger


def rows(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_text().split()


def test_a_resumed_run_keeps_the_rows_before_it(tmp_path: Path) -> None:
    first = RunLogger(tmp_path)
    for step in range(4):
        first.log_metrics({"train/loss": 0.1 + step}, step)
    second = RunLogger(tmp_path)  # from a checkpoint after step 1
    second.log_metrics({"train/loss": 9.0}, 2)
    assert rows(tmp_path) == ["step,train/loss", "0,0.1", "1,1.1", "2,9.0"]
    second.log_metrics({"val/loss": 1.0}, 2)
    assert rows(tmp_path)[-1] == "2,,1.0"


def test_a_run_killed_before_its_first_row_loses_none(tmp_path: Path) -> None:
    RunLogger(tmp_path).log_metrics({"train/loss": 0.5}, 0)
    RunLogger(tmp_path).experiment  # noqa: B018 - Lightning's writer deletes the file here
    RunLogger(tmp_path).log_metrics({"train/loss": 0.6}, 1)
    assert rows(tmp_path) == ["step,train/loss", "0,0.5", "1,0.6"]


def test_a_finished_run_that_is_resumed_keeps_all(tmp_path: Path) -> None:
    RunLogger(tmp_path).log_metrics({"train/loss": 0.5}, 0)
    RunLogger(tmp_path).finalize("success")
    assert rows(tmp_path) == ["step,train/loss", "0,0.5"]
