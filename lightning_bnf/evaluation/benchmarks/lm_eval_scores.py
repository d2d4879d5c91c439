"""lm-eval's results, read back from the JSON that it writes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_bnf.evaluation.benchmarks.suites import SuiteError, SuiteTask
from lightning_bnf.results.markdown import markdown_table


@dataclass(frozen=True)
class Score:
    """A benchmark's score in [0, 1] over `n` rows; `stderr` is lm-eval's, None where it gives none."""

    name: str
    task: str
    metric: str
    n: int
    value: float
    stderr: float | None


def read_scores(path: Path, tasks: Sequence[SuiteTask]) -> list[Score]:
    """The scores of `tasks` in a results file of lm-eval. Raises `SuiteError` where one is not in it."""
    results = json.loads(path.read_text(encoding="utf-8"))
    return [_score(one, results, path) for one in tasks]


def latest_results(folder: Path) -> Path:
    """The newest results file of a folder; its name holds the time. Raises `SuiteError` where there is none."""
    found = sorted(folder.glob("results_*.json"))
    if not found:
        raise SuiteError(f"{folder}: must be the output folder of evaluate, got one without results_*.json")
    return found[-1]


def _score(one: SuiteTask, results: Mapping[str, Any], path: Path) -> Score:
    scores = results.get("groups" if one.group else "results", {}).get(one.task, {})
    if one.metric not in scores:
        raise SuiteError(f"{path}: must be results of {one.task}, got none of its {one.metric}")
    metric, _, filtered = one.metric.partition(",")
    error = scores.get(f"{metric}_stderr,{filtered}")
    stderr = float(error) if isinstance(error, (int, float)) else None  # "N/A" where it cannot be computed
    n = sum(results["n-samples"][task]["effective"] for task in _parts(one.task, results))
    return Score(one.name, one.task, one.metric, n, float(scores[one.metric]), stderr)


def _parts(task: str, results: Mapping[str, Any]) -> list[str]:
    """The tasks of a group, of its groups too; of a task, itself."""
    inside = results.get("group_subtasks", {}).get(task) or []
    return [part for child in inside for part in _parts(child, results)] or [task]


def scores_table(scores: Sequence[Score]) -> str:
    """The scores as Markdown, with their standard errors."""
    rows = [
        (
            score.name,
            score.metric,
            score.n,
            f"{score.value:.3f}",
            "-" if score.stderr is None else f"{score.stderr:.3f}",
        )
        for score in scores
    ]
    return markdown_table(("benchmark", "metric", "n", "score", "standard error"), *rows) + "\n"
