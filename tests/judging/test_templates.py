"""Prompts: ours, a file, and checkouts of each benchmark, of which a few lines stand in."""

from pathlib import Path

import pytest

from lightning_bnf.judging.protocols import PROTOCOLS
from lightning_bnf.judging.templates import Template, read_template


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_ours_are_there_for_every_benchmark(name: str) -> None:
    found = read_template("own", PROTOCOLS[name])
    assert found.source == "lightning_bnf"
    assert (found.tokens is not None) == (PROTOCOLS[name].kind == "letters")


def test_what_answers_hold_is_not_filled_again() -> None:
    found = Template("n", "s", "1", "l", "{{question}} | {{answer_a}} | {{answer_b}}")
    slots = {"question": "{{answer_b}}", "answer_a": "{0} {", "answer_b": "b"}
    assert found.messages(slots) == [{"role": "user", "content": "{{answer_b}} | {0} { | b"}]


def test_another_word_is_another_prompt() -> None:
    hashes = {Template("n", "s", "1", "l", "x", {"": text}).hash for text in ("a", "b")}
    assert len(hashes) == 2


FILES = {
    "arena_hard_v0.1": {
        "config/judge_config.yaml": "system_prompt: be fair\n"
        'prompt_template: ["Q {question_1} A {answer_1} B {answer_2}"]\n'
    },
    "arena_hard_v2": {
        "config/arena-hard-v2.0.yaml": 'prompt_template: "Q {QUESTION} A {ANSWER_A} B {ANSWER_B}"\n',
        "utils/judge_utils.py": "P = 'be fair'\nraise SystemExit\nJUDGE_SETTINGS = {\n"
        " 'hard_prompt': {'baseline': 'x', 'system_prompt': P},\n 'creative_writing': {'system_prompt': 'be kind'}}\n",
    },
    "wildbench": {"evaluation/eval_template.score.v2.md": "{$history}{$user_query}{$model_output}{$checklist}"},
    "wildbench_pairs": {
        "evaluation/eval_template.pairwise.v2.md": "{$history}{$user_query}{$candidate_A}{$candidate_B}"
    },
    "alpaca_eval_2": {
        "x/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt": "<|im_start|>system\nbe fair\n<|im_end|>\n"
        "<|im_start|>user\n{instruction} {output_1} {output_2}\n<|im_end|>"
    },
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_checkout_is_read_and_never_run(name: str, tmp_path: Path) -> None:
    for path, text in FILES[name].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = read_template(str(tmp_path), PROTOCOLS[name])
    slots = {"question": "Q", "query": "Q", "answer_a": "A", "answer_b": "B", "answer": "A"}
    said = found.messages(slots, "hard_prompt")
    assert "{" not in said[-1]["content"]
    assert "Q" in said[-1]["content"]
    if name == "arena_hard_v2":
        assert [found.messages(slots, kind)[0]["content"] for kind in ("hard_prompt", "creative_writing")] == [
            "be fair",
            "be kind",
        ]
    if name == "alpaca_eval_2":
        assert found.tokens == ("m", "M")


def test_what_is_no_prompt_is_refused(tmp_path: Path) -> None:
    protocol = PROTOCOLS["arena_hard_v0.1"]
    with pytest.raises(
        ValueError, match="prompt must be own, a YAML file, or a checkout of the benchmark's repository"
    ):
        read_template("nowhere", protocol)
    with pytest.raises(ValueError, match=r"or a checkout of Arena-Hard v0.1, rules of 2024's repository, got"):
        read_template(str(tmp_path), protocol)
    (tmp_path / "mine.yaml").write_text("{name: n, source: s, version: 1, licence: l, user: '{{question}}'}")
    with pytest.raises(ValueError, match="prompt must hold the slots answer_a, answer_b, question and others"):
        read_template(str(tmp_path / "mine.yaml"), protocol)
