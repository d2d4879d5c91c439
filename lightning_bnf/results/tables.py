"""Run folders as tables."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_bnf.runtime.refusal import Refusal

_BENCH_INDEX = ["suite", "case", "variant"]


def read_metrics(run: str | Path) -> pd.DataFrame:
    """The `metrics.csv` of a run folder as a tidy table: columns step, split, metric, value; no empty cells.

    Raises Refusal where the folder holds none.
    """
    path = Path(run) / "metrics.csv"
    if not path.is_file():
        raise Refusal(f"run must be a run folder, got {run}, which holds no metrics.csv")
    wide = pd.read_csv(path)
    names = [name for name in wide.columns if "/" in name]
    tidy = wide.melt(id_vars="step", value_vars=names, var_name="name", value_name="value").dropna()
    tidy[["split", "metric"]] = tidy["name"].str.split("/", n=1, expand=True)
    return tidy[["step", "split", "metric", "value"]].sort_values(["metric", "split", "step"], ignore_index=True)


def last_metrics(run: Path, step: int) -> dict[str, float]:
    """The last values of a run's metrics up to a step; none where the run folder has no metrics.csv."""
    if not (run / "metrics.csv").is_file():
        return {}
    found = read_metrics(run)
    found = found[found["step"] < step]  # rows are numbered by the step that they were measured in, from 0
    last = found.groupby(["split", "metric"])["value"].last()
    return {f"{split}/{metric}": float(value) for (split, metric), value in last.items()}


def displacement(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What the displacement alarm measured in a matrix of runs, tidy: columns method, seed, step, kind, change.

    `records` as `reproduction.read_results` gives them; `change` is that of the mean token log-prob since the start, in
    nats a token, and `kind` one of chosen, rejected and held_out.
    """
    rows = []
    for record in records:
        own = {"method": record["method"], "seed": record["seed"]}
        first, *_ = measured = record["results"]["displacement"]["measured"]
        for now in measured:
            changes = {kind: now[kind] - first[kind] for kind in set(first) - {"step"}}
            rows += [own | {"step": now["step"], "kind": kind, "change": change} for kind, change in changes.items()]
    return pd.DataFrame(rows).sort_values(["method", "seed", "kind", "step"], ignore_index=True)


def displacement_table(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Of each method the changes at the end (nats a token), their mean and every seed's, and the steps of alarms."""
    changes = displacement(records)
    last = changes[changes["step"] == changes.groupby(["method", "seed"])["step"].transform("max")]
    table = last.pivot_table(index="method", columns="kind", values="change", aggfunc="mean").round(2)
    for kind in list(table.columns):
        by_seed = last[last["kind"] == kind].groupby("method")["change"]
        table[f"{kind}, each seed"] = by_seed.apply(lambda values: ", ".join(f"{value:+.2f}" for value in values))
    for kind, title in (("both_classes", "alarm: both fall"), ("held_out", "alarm: held-out")):
        steps: dict[str, list[str]] = {}
        for record in sorted(records, key=lambda record: record["seed"]):
            sentence = record["results"]["displacement"]["alarms"].get(kind, "step -:")
            steps.setdefault(record["method"], []).append(sentence.split(":")[0].removeprefix("step "))
        table[f"{title} (steps)"] = pd.Series({method: ", ".join(found) for method, found in steps.items()})
    return table


def read_bench(folder: str | Path, suites: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of all JSON files that `bench` wrote into a folder, with their machine; of some suites, or of all.

    Raises `Refusal` for a suite that is not there.
    """
    records = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    rows = [row | {"machine": record["machine"]} for record in records for row in record["rows"]]
    there = list(dict.fromkeys(row["suite"] for row in rows))
    for suite in suites or ():
        if suite not in there:
            raise Refusal(f"suites must be of those measured in {folder}: {', '.join(there) or 'none'}, got {suite!r}")
    return [row for row in rows if suites is None or row["suite"] in suites]


def bench_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What `bench` measured, `rows` as `read_bench` gives them: index suite, case, variant; columns turns (that were
    measured), median (seconds), ratio (of medians, to the first variant of the case), peak (GB), machine."""
    found = [
        {
            **{name: row[name] for name in _BENCH_INDEX},
            "turns": len(row["seconds"]),
            "median (s)": statistics.median(row["seconds"]),
            "peak (GB)": row["peak_bytes"] / 1e9,
            "machine": row["machine"],
        }
        for row in rows
    ]
    table = pd.DataFrame(found)
    first = table.groupby(_BENCH_INDEX[:2], sort=False)["median (s)"].transform("first")
    table.insert(5, "ratio", table["median (s)"] / first)
    return table.set_index(_BENCH_INDEX)


class _Answers(pd.DataFrame):
    def _repr_html_(self) -> str:
        style = {"white-space": "pre-wrap", "text-align": "left", "vertical-align": "top"}
        html: str = self.style.format(escape="html").set_properties(**style).hide(axis="index").to_html()
        return html


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """The same table, which a notebook shows whole: pandas cuts texts after 50 characters. What a text holds of HTML is
    shown, never run."""
    return _Answers(table)
