"""Everything that a page shows of a run, read from the run's folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lightning_bnf.pages import scores
from lightning_bnf.pages.scores import MOMENTS, ShownRow, Snapshot
from lightning_bnf.runtime.refusal import Refusal

if TYPE_CHECKING:  # half a second, which the command line's --help has no use for
    import pandas as pd

ANSWERS = ("before", "after")


@dataclass(frozen=True)
class Run:
    """A run folder's contents; what is not there is empty. `metrics` as `results.read_metrics` gives them."""

    folder: Path
    about: dict[str, Any]
    config: dict[str, Any]
    metrics: "pd.DataFrame"
    steps: dict[str, list[float]]
    rows: list[ShownRow]
    snapshots: dict[str, Snapshot]
    completions: list[dict[str, Any]]
    data_report: str

    @property
    def loss(self) -> str:
        """The name of the loss."""
        return str(self.about.get("loss") or _class_name(self.config.get("model", {}).get("loss")) or "a loss")

    @property
    def model(self) -> str:
        """The model's id or the name of its folder."""
        source = str(self.about.get("model") or "a model")
        return Path(source).name if Path(source).is_absolute() else source

    def series(self, split: str, metric: str) -> tuple[list[float], list[float]]:
        """Optimizer steps (from 1) and values of a metric."""
        rows = self.metrics[(self.metrics["split"] == split) & (self.metrics["metric"] == metric)]
        return (rows["step"] + 1).tolist(), rows["value"].tolist()

    def shown(self, places: Sequence[int]) -> tuple[list[ShownRow], dict[str, Snapshot]]:
        """The rows at some places, and their snapshots."""
        snapshots = {
            name: Snapshot(found.step, [found.logps[i] for i in places]) for name, found in self.snapshots.items()
        }
        return [self.rows[i] for i in places], snapshots


def read_run(folder: str | Path, rows: int | None = None) -> Run:
    """A run folder. `rows`: the most rows to show, evenly apart; 0 leaves out all that is data; None takes all.

    Raises `Refusal` for a folder that no run has written.
    """
    path = Path(folder)
    about = scores.read_about(path)
    if not path.is_dir() or not (about or (path / "metrics.csv").is_file() or (path / "config.yaml").is_file()):
        raise Refusal(f"run must be a run folder, got {folder}, which holds no config.yaml and no metrics.csv")
    from lightning_bnf.results.tables import read_metrics

    metrics = path / "metrics.csv"
    without = rows == 0 or (about.get("rows") == 0 and rows is None)
    found = {} if without else {name: scores.read_snapshot(path, name) for name in MOMENTS}
    all_rows = [] if without else scores.read_rows(path)
    run = Run(
        folder=path,
        about=about,
        config=_yaml(path / "config.yaml"),
        metrics=read_metrics(path) if metrics.is_file() and metrics.stat().st_size else _no_metrics(),
        steps=scores.read_steps(path),
        rows=all_rows,
        # a run that was killed between two files may have left scores of other rows
        snapshots={name: one for name, one in found.items() if one and all_rows and len(one.logps) == len(all_rows)},
        completions=[] if without else _jsonl(path / "completions.jsonl"),
        data_report="" if without else _text(path / "data_report.txt"),
    )
    if rows is None or len(all_rows) <= rows:
        return run
    kept, snapshots = run.shown([i * len(all_rows) // rows for i in range(rows)])
    return replace(run, rows=kept, snapshots=snapshots)


def flattened(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings by their dotted names; those that are null or empty are left out."""
    if isinstance(value, dict):
        before = f"{prefix}." if prefix else ""
        return [pair for name, held in value.items() for pair in flattened(held, f"{before}{name}")]
    if isinstance(value, list) and any(isinstance(held, dict | list) for held in value):
        return [pair for place, held in enumerate(value) for pair in flattened(held, f"{prefix}.{place}")]
    return [] if value is None or value in ([], "") else [(prefix, _written(value))]


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(_written, value)) if isinstance(value, list) else str(value)


def _class_name(loss: Any) -> str:
    path = loss.get("class_path", "") if isinstance(loss, dict) else str(loss or "")
    return path.rpartition(".")[2]


def _no_metrics() -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame({"step": [], "split": [], "metric": [], "value": []})


def _yaml(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(_text(path)) if path.is_file() else None
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _jsonl(path: Path) -> list[dict[str, Any]]:
    """The records; a last line that is not whole yet is left out."""
    found = []
    for line in _text(path).split("\n"):
        try:
            record = json.loads(line) if line else None
        except ValueError:
            continue
        if isinstance(record, dict) and set(ANSWERS) <= set(record):
            found.append(record)
    return found
