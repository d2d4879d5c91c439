"""Run folders as tables."""

from pathlib import Path

import pandas as pd


def read_metrics(run: str | Path) -> pd.DataFrame:
    """The `metrics.csv` of a run folder as a tidy table: columns step, split, metric, value; no empty cells.

    Raises FileNotFoundError where the folder holds none.
    """
    path = Path(run) / "metrics.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{run}: the folder holds no metrics.csv, so it is not a run folder")
    wide = pd.read_csv(path)
    names = [name for name in wide.columns if "/" in name]
    tidy = wide.melt(id_vars="step", value_vars=names, var_name="name", value_name="value").dropna()
    tidy[["split", "metric"]] = tidy["name"].str.split("/", n=1, expand=True)
    return tidy[["step", "split", "metric", "value"]].sort_values(["metric", "split", "step"], ignore_index=True)
