"""Multiple choice by likelihood: as lm-eval scores it, and questions drawn in their shares."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from support.benchmark_rows import ROWS

from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.evaluation.benchmarks.evaluate import run_lm_eval
from lightning_bnf.evaluation.benchmarks.suites import SuiteError, as_lm_eval_takes_it
from lightning_bnf.evaluation.likelihood.choices import Question, choice_tasks, questions, stratified
from lightning_bnf.evaluation.likelihood.scoring import giving, summed_logps, way_of
from lightning_bnf.policies.exported import exported

TASKS = ["bnf_commonsense_qa", "bnf_openbookqa"]


@pytest.fixture
def files(tmp_path):
    """Each benchmark's two rows, and a third without the first's line break before its options."""
    found = {}
    for task in TASKS:
        path = tmp_path / f"{task}.jsonl"
        more = {"question": "What swims?", "options": ROWS[task][1]["options"].strip(), "answer": "A. x"}
        path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS[task], more]))
        found[task] = str(path)
    return found


def test_the_right_option_is_compared_by_log_prob_or_by_log_prob_a_character():
    """ln 0.5 of 4 characters against ln 0.25 of 8: plainly the first is the likelier; per character both are."""
    row = TokenizedRow("1", "x:1", "unpaired", [1])
    logps = np.log([0.5, 0.25])
    plain, normed = Question(row, "Q", {}, 1, (1.0, 1.0)), Question(row, "Q", {}, 1, (4.0, 8.0))
    assert not plain.passed(logps)
    assert (plain.ranked(logps), normed.ranked(logps)) == (0.0, 0.5)
    assert not normed.passed(logps), "of equals the first counts, as in lm-eval"
    assert normed.passed(np.log([0.5, 0.26]))
    three = Question(row, "Q", {}, 1, (1.0, 1.0, 1.0))
    assert [three.ranked(np.log(some)) for some in ([0.1, 0.2, 0.7], [0.2, 0.2, 0.1])] == [0.5, 0.75]
    assert three.ranked(3 * np.log([0.1, 0.2, 0.7])) == 0.5, "a policy that is surer of all ranks as it did"


def test_every_first_part_holds_each_stratum_in_its_share():
    strata = ["a"] * 6 + ["b"] * 3
    order = stratified(strata, list(range(9)))
    assert sorted(order) == list(range(9))
    for part in (3, 6):
        assert Counter(strata[place] for place in order[:part]) == {"a": part * 2 // 3, "b": part // 3}
    assert order == stratified(strata, list(range(9)))


def test_only_tasks_of_choices_are_known(files, tokenizer):
    assert list(choice_tasks()) == TASKS
    with pytest.raises(SuiteError, match="choices must be of bnf_commonsense_qa, bnf_openbookqa, got 'bnf_asdiv'"):
        questions(["bnf_asdiv"], {}, tokenizer)
    with pytest.raises(SuiteError, match="files bnf_openbookqa: must be a JSONL file with its rows"):
        questions(["bnf_openbookqa"], {"bnf_openbookqa": "none.jsonl"}, tokenizer)
    with pytest.raises(SuiteError, match="files must be of the choices, bnf_openbookqa, got 'other'"):
        questions(["bnf_openbookqa"], {"other": "x"}, tokenizer)


def test_a_row_that_cannot_be_read_is_named(tmp_path, tokenizer):
    path = tmp_path / "rows.jsonl"
    rows = [ROWS["bnf_openbookqa"][0], {"question": "Q?", "options": "A) x\nB) y", "answer": "A) x"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SuiteError, match=r"rows\.jsonl:2: options must be two lines or more"):
        questions(["bnf_openbookqa"], {"bnf_openbookqa": str(path)}, tokenizer)


@pytest.mark.slow
def test_scores_are_lm_evals_own_to_the_last_row(files, tiny_folder, tokenizer):
    policy = exported(tiny_folder)
    policy.load()
    asked = questions(TASKS, files, tokenizer)
    rows = [one.row for one in asked]
    sums = summed_logps(giving(policy), rows, way_of(policy, rows, 512), torch.device("cpu"))
    for task, one in choice_tasks().items():
        samples = run_lm_eval(policy.loaded, tokenizer, [as_lm_eval_takes_it(one, files)], False, None, 4, 1)["samples"]
        metric = one.metric.partition(",")[0]
        mine = {q.row.source: (q, s) for q, s in zip(asked, sums) if q.row.source.startswith(task)}
        assert len(mine) == len(samples[task]) == 3
        for (question, logps), sample in zip((mine[key] for key in sorted(mine)), samples[task]):
            assert logps.tolist() == pytest.approx([float(found[0][0]) for found in sample["resps"]], abs=1e-4)
            assert question.passed(logps) == bool(sample[metric])
