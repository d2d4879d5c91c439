"""Table 4 from what its steps have left: ours, with intervals, ranks and judges, beside the printed one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_bnf.reproduction.printed import BASE_MODELS, METRICS, table4
from lightning_bnf.reproduction.ranks import MISSING, average_rank, ranks, shown
from lightning_bnf.reproduction.table4 import ARENA, WILD, Table4
from lightning_bnf.results.markdown import markdown_table
from lightning_bnf.runtime.files import write_text

JUDGED = {
    (WILD, "Elo"): "wildbench_elo",
    (WILD, "task macro (the paper's score)"): "wildbench_score",
    (ARENA, "LC (%), as published"): "arenahard_lc",
    (ARENA, "WR (%)"): "arenahard_wr",
}
"""What `scores` calls the paper's columns."""
MEASURED = {"GSM8K": "gsm8k", "MATH level 5": "math_l5", "CRUX": "crux", "MMLU-redux": "mmlu_redux"}
"""What `evaluate` calls them."""
_Z = 1.959964


def write_table(
    table: Table4, output: Path, scores: Path | None, measured: Mapping[tuple[str, str], Path]
) -> pd.DataFrame:
    """Write table4.md and table4.csv, and print the former. scores: of `scores`; measured: folders of `evaluate`.

    Returns a line for each number: base_model, method, metric, value, low, high, n, missing, judge.
    """
    names = {f"{model}/{method}": (model, method) for model, rows in table.models.items() for method in rows}
    lines = [*(_judged(scores, names) if scores is not None else ()), *_measured(measured)]
    columns = ["base_model", "method", "metric", "value", "low", "high", "n", "missing", "judge"]
    found = pd.DataFrame(lines, columns=columns)
    text = as_markdown(table, found)
    write_text(output / "table4.csv", found.to_csv(index=False))
    write_text(output / "table4.md", text)
    print(f"{text}\nin {output}: table4.md, table4.csv")
    return found


def _judged(scores: Path, names: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    held = json.loads(scores.read_text(encoding="utf-8"))["scores"]
    return [
        dict(zip(("base_model", "method"), names[line["model"]]))
        | {"metric": JUDGED[line["benchmark"], line["measure"]]}
        | {name: line[name] for name in ("value", "low", "high", "n", "missing")}
        | {"judge": f"{line['judge']}, prompt {line['prompt']}"}
        for line in held
        if (line["benchmark"], line["measure"]) in JUDGED
    ]


def _measured(folders: Mapping[tuple[str, str], Path]) -> list[dict[str, Any]]:
    lines = []
    for (model, method), folder in folders.items():
        for one in json.loads((folder / "scores.json").read_text(encoding="utf-8")):
            half = _Z * one["stderr"] if one["stderr"] is not None else float("nan")
            value = [100 * number for number in (one["value"], one["value"] - half, one["value"] + half)]
            numbers = dict(zip(("value", "low", "high"), value)) | {"n": one["n"], "missing": 0, "judge": ""}
            lines.append({"base_model": model, "method": method, "metric": MEASURED[one["name"]]} | numbers)
    return lines


def as_markdown(table: Table4, found: pd.DataFrame) -> str:
    """For each base model two lines a method, ours and the printed one. Ranks are among our methods, in columns that
    all of them have; the average rank where all columns are so."""
    parts = ["# Table 4\n\nOurs: value [95 % interval] (rank). Printed: value (rank)."]
    for model in table.models:
        ours = _ours(found[found["base_model"] == model])
        printed = shown(table4(model)) if model in BASE_MODELS else pd.DataFrame(columns=ours.columns)
        rows = []
        for method in dict.fromkeys([*printed.index, *table.models[model]]):
            for side, held in (("ours", ours), ("printed", printed)):
                cells = held.loc[method] if method in held.index else [MISSING] * len(ours.columns)
                rows.append((f"{method}, {side}", *cells))
        parts.append(f"## {model}\n\n{markdown_table(('', *ours.columns), *rows, padded=True)}")
    judges = found[found["judge"] != ""].drop_duplicates(["metric", "judge"])
    notes = [f"- {METRICS[line.metric]}: judged by {line.judge}" for line in judges.itertuples()]
    for metric, lines in found.groupby("metric", sort=False):
        span = f"{lines['n'].min()}" if lines["n"].nunique() == 1 else f"{lines['n'].min()} to {lines['n'].max()}"
        notes.append(f"- {METRICS[str(metric)]}: n {span}, {lines['missing'].sum()} missing; {len(lines)} models")
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def _ours(found: pd.DataFrame) -> pd.DataFrame:
    """Text of each method and column, with the average rank."""
    wide = found.pivot(index="method", columns="metric", values="value").reindex(columns=list(METRICS))
    whole = wide.loc[:, wide.notna().all()]
    ranked = ranks(whole) if len(whole.columns) else whole
    text = pd.DataFrame(MISSING, index=wide.index, columns=[*METRICS.values(), "Average rank"])
    for line in found.itertuples():
        digits = 0 if line.metric.endswith("elo") else 1
        rank = f" ({ranked.loc[line.method, line.metric]})" if line.metric in ranked else ""
        interval = "" if pd.isna(line.low) else f" [{line.low:.{digits}f}, {line.high:.{digits}f}]"
        text.loc[line.method, METRICS[line.metric]] = f"{line.value:.{digits}f}{interval}{rank}"
    if len(whole.columns) == len(METRICS) and len(wide):
        text["Average rank"] = [f"{value:.2f}" for value in average_rank(ranked)]
    return text
