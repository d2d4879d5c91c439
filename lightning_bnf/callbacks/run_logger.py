"""The metrics of a run, over all its resumptions."""

import csv
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


class RunLogger(CSVLogger):
    """`metrics.csv` of a run folder. Lightning's own begins anew when a run is resumed and deletes what was there: here
    the rows before the first resumed step are kept, and every row is in the file as soon as it is measured.
    """

    def __init__(self, root: str | Path):
        """
        Args:
            root: The run folder.
        """
        super().__init__(str(root), name="", version="", flush_logs_every_n_steps=1)
        self._file, self._aside = Path(root) / "metrics.csv", Path(root) / ".metrics.before.csv"
        self._before: list[dict[str, Any]] = []
        self._put_aside()

    @rank_zero_only
    def _put_aside(self) -> None:
        if self._file.is_file():
            os.replace(self._file, self._aside)
        if self._aside.is_file():
            with self._aside.open(newline="") as lines:
                self._before = [{name: x for name, x in row.items() if x} for row in csv.DictReader(lines)]

    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: config.yaml lies beside metrics.csv and says it all."""

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._bring_back(step)
        super().log_metrics(metrics, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._bring_back(None)
        super().finalize(status)

    def _bring_back(self, until: int | None) -> None:
        """Write the earlier rows, those before step `until` if given: the others are measured again."""
        if not self._before:
            return
        kept = [row for row in self._before if until is None or int(row["step"]) < until]
        self.experiment.metrics = [*kept, *self.experiment.metrics]
        self._before = []
        self.save()
        self._aside.unlink()


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
