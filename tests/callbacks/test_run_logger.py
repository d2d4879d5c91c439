"""metrics.csv over resumptions: rows before the resumed step stay, those after it are measured again."""

import errno
import logging
from pathlib import Path

import pytest

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


def test_a_run_that_goes_on_with_a_validation_keeps_the_training_before_it(tmp_path: Path) -> None:
    """The step was trained, and its validation told to end: its numbers are measured anew, the training's are not."""
    first = RunLogger(tmp_path)
    first.log_metrics({"train/loss": 0.1}, 0)
    first.log_metrics({"val/loss": 0.2}, 0)
    RunLogger(tmp_path).log_metrics({"val/loss": 0.3}, 0)
    assert rows(tmp_path) == ["step,train/loss,val/loss", "0,0.1,", "0,,0.3"]


def test_a_run_that_goes_on_with_prompts_of_a_step_trains_that_step_anew(tmp_path: Path) -> None:
    RunLogger(tmp_path).log_metrics({"train/loss": 0.1}, 0)
    second = RunLogger(tmp_path)
    second.log_metrics({"val/pass_rate": 0.5}, 0)
    second.log_metrics({"train/loss": 0.2}, 0)
    assert rows(tmp_path) == ["step,train/loss,val/pass_rate", "0,,0.5", "0,0.2,"]


@pytest.mark.parametrize("resumed", [7, 8, 9])
def test_a_row_that_is_missing_is_named(tmp_path: Path, resumed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Rows of the steps 2, 4 and 6, counted from 1; that of step 8 was not written when the run was killed."""
    logger = RunLogger(tmp_path)
    for step in (1, 3, 5):
        logger.log_metrics({"train/loss": 0.1}, step)
    with caplog.at_level(logging.INFO):
        RunLogger(tmp_path).log_metrics({"train/loss": 0.1}, resumed)
    assert ("metrics.csv has no row of step 8: the run was killed" in caplog.text) == (resumed > 7)


def test_a_run_killed_before_its_first_row_loses_none(tmp_path: Path) -> None:
    RunLogger(tmp_path).log_metrics({"train/loss": 0.5}, 0)
    RunLogger(tmp_path).experiment  # noqa: B018 - Lightning's own writer deletes the file here
    assert rows(tmp_path) == ["step,train/loss", "0,0.5"]
    RunLogger(tmp_path).log_metrics({"train/loss": 0.6}, 1)
    assert rows(tmp_path) == ["step,train/loss", "0,0.5", "1,0.6"]


def test_a_finished_run_that_is_resumed_keeps_all(tmp_path: Path) -> None:
    RunLogger(tmp_path).log_metrics({"train/loss": 0.5}, 0)
    RunLogger(tmp_path).finalize("success")
    assert rows(tmp_path) == ["step,train/loss", "0,0.5"]


def test_a_row_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    RunLogger(tmp_path).log_metrics({"train/loss": 0.5}, 0)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("1,0.1")  # of 0.125
    RunLogger(tmp_path).log_metrics({"train/loss": 0.125}, 1)
    assert rows(tmp_path) == ["step,train/loss", "0,0.5", "1,0.125"]


def test_a_full_disk_leaves_the_rows_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New columns need the file anew: Lightning's own writer empties it first. The run goes on when there is space."""
    logger = RunLogger(tmp_path)
    logger.log_metrics({"train/loss": 0.5}, 0)
    monkeypatch.setattr("csv.DictWriter.writerows", full)
    with pytest.raises(OSError, match="No space left"):
        logger.log_metrics({"val/loss": 1.0}, 0)
    monkeypatch.undo()
    assert rows(tmp_path) == ["step,train/loss", "0,0.5"]
    RunLogger(tmp_path).log_metrics({"val/loss": 1.0}, 1)
    assert rows(tmp_path) == ["step,train/loss,val/loss", "0,0.5,", "1,,1.0"]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
