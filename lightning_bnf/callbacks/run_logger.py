"""The metrics of a run, over all its resumptions."""

import csv
import itertools
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from lightning_bnf.runtime.files import replacing

_TRAINED = "train/loss"  # what the row of every step that is written has
_OF_A_STEP = {"val/pass_rate"}  # measured after a training step, and written before that step's own row


class _Rows(ExperimentWriter):
    """Rows behind those that are there. Lightning's writer deletes these, and empties the file to give it new columns:
    here it is whole at every moment, whatever kills the run or fills the disk."""

    def _check_log_dir_exists(self) -> None:
        """Nothing: what is there stays."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self._write(fieldnames, self._read())

    def begin(self, step: int, trains: bool) -> None:
        """Keep the rows before `step`, as the others are measured again, and none that was half-written; where the run
        `trains` not in it, but begins with its validation, its training's row as well."""
        if not Path(self.metrics_file_path).is_file():
            return
        first = step if trains else step + 1  # that trains anew
        kept = [
            row
            for row in self._read()
            if row["step"].isdigit() and int(row["step"]) < (first if row.get(_TRAINED) else step)
        ]
        _say_missing([int(row["step"]) for row in kept if row.get(_TRAINED)], first)
        self.metrics_keys = sorted({name for row in kept for name, value in row.items() if value})
        if kept:
            self._write(self.metrics_keys, kept)
        else:
            Path(self.metrics_file_path).unlink()

    def _read(self) -> list[dict[str, str]]:
        with Path(self.metrics_file_path).open(newline="", encoding="utf-8") as file:
            whole = [line for line in file if line.endswith("\n")]
        return [row for row in csv.DictReader(whole) if None not in row.values()]

    def _write(self, names: list[str], rows: list[dict[str, str]]) -> None:
        with replacing(Path(self.metrics_file_path)) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def _say_missing(steps: list[int], first: int) -> None:
    """A run that was killed after it had saved a step, and before it wrote the step's row, lacks that row for good."""
    every = min((later - earlier for earlier, later in itertools.pairwise(steps)), default=0)
    if every and first - steps[-1] > every:
        rank_zero_info(
            f"metrics.csv has no row of step {steps[-1] + every + 1}: the run was killed when it had saved that step, "
            "and before it wrote the row"
        )


class RunLogger(CSVLogger):
    """`metrics.csv` of a run folder: the rows before the first resumed step are kept, and every row is in the file as
    soon as it is measured. Nothing is touched before the first of them."""

    def __init__(self, root: str | Path):
        """
        Args:
            root: The run folder.
        """
        super().__init__(str(root), name="", version="", flush_logs_every_n_steps=1)
        self._begun = False

    @property
    @rank_zero_experiment
    def experiment(self) -> _Rows:
        """The file's writer."""
        if self._experiment is None:
            self._experiment = _Rows(self.log_dir)
        assert isinstance(self._experiment, _Rows)
        return self._experiment

    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: config.yaml lies beside metrics.csv and says it all."""

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if not self._begun:
            validates = any(name.startswith("val/") for name in metrics.keys() - _OF_A_STEP)
            self.experiment.begin(step or 0, not validates)
            self._begun = True
        super().log_metrics(metrics, step)


class RunEvents(TensorBoardLogger):
    """TensorBoard's events in the run folder itself, without Lightning's hparams.yaml: config.yaml is there."""

    def __init__(self, root: str | Path):
        """
        Args:
            root: The run folder.
        """
        super().__init__(str(root), name="", version="")

    def save(self) -> None:
        super(TensorBoardLogger, self).save()  # of Fabric, which writes the events alone
