"""Scores read back from lm-eval's files."""

import json

import pytest

from lightning_bnf.evaluation.benchmarks.lm_eval_scores import (
    Score,
    latest_results,
    read_scores,
    scores_table,
)
from lightning_bnf.evaluation.benchmarks.suites import SUITES, SuiteError


def test_scores_of_groups_and_tasks_are_read_back(tmp_path):
    """A group of two subgroups with 3 + 2 + 1 rows; a standard error that lm-eval could not compute."""
    redux, crux = SUITES["zeroeval"][2], SUITES["zeroeval"][3]
    results = {
        "results": {"bnf_crux_output": {"exact_match,none": 0.25, "exact_match_stderr,none": "N/A"}},
        "groups": {redux.task: {"exact_match,default": 0.5, "exact_match_stderr,default": 0.2}},
        "group_subtasks": {redux.task: ["stem", "other"], "stem": ["a", "b"], "other": ["c"], "bnf_crux_output": []},
        "n-samples": {name: {"effective": n} for name, n in (("a", 3), ("b", 2), ("c", 1), ("bnf_crux_output", 4))},
    }
    path = tmp_path / "results_1.json"
    path.write_text(json.dumps(results))
    scores = read_scores(path, [redux, crux])
    assert scores == [
        Score("MMLU-redux", redux.task, "exact_match,default", 6, 0.5, 0.2),
        Score("CRUX", "bnf_crux_output", "exact_match,none", 4, 0.25, None),
    ]
    assert "| MMLU-redux | exact_match,default | 6 | 0.500 | 0.200 |\n" in scores_table(scores)
    assert scores_table(scores).endswith("| CRUX | exact_match,none | 4 | 0.250 | - |\n")
    (tmp_path / "results_2.json").write_text("{}")
    assert latest_results(tmp_path).name == "results_2.json"
    with pytest.raises(SuiteError, match="must be results of bnf_crux_output, got none of its exact_match,none"):
        read_scores(tmp_path / "results_2.json", [crux])
    with pytest.raises(SuiteError, match="must be the output folder of evaluate, got one without results"):
        latest_results(tmp_path / "nowhere")
