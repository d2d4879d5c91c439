"""Answers in the forms of AlpacaEval, Arena-Hard and WildBench."""

import json

from lightning_bnf.generation.answer_files import Answer, Generator, answer_file, markdown_counts
from lightning_bnf.generation.questions import Question

ANSWER = Answer(
    Question("s1", ({"role": "user", "content": "Hi"},), {"instruction": "Hi", "dataset": "d", "primary_tag": "t"}),
    "Hé",
    2,
    True,
    12.5,
    "<user>Hi",
)


GENERATOR = Generator("tiny", "transformers", 0.7, 64, 3)


def test_the_form_of_alpaca_eval():
    assert json.loads(answer_file("alpaca_eval", [ANSWER], GENERATOR)) == [
        {"dataset": "d", "instruction": "Hi", "output": "Hé", "generator": "tiny"}
    ]


def test_the_form_of_arena_hard():
    (row,) = map(json.loads, answer_file("arena_hard", [ANSWER], GENERATOR).splitlines())
    assert set(row) == {"uid", "ans_id", "model", "messages", "tstamp", "metadata"}
    assert (row["uid"], row["model"], row["tstamp"]) == ("s1", "tiny", 12.5)
    assert row["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": {"answer": "Hé"}},
    ]
    assert row["metadata"]["token_len"] == 2
    assert row["metadata"]["sampling"] == {
        "engine": "transformers",
        "temperature": 0.7,
        "max_tokens": 64,
        "seed": 3,
        "finished": True,
    }


def test_the_form_of_wildbench():
    assert json.loads(answer_file("wildbench", [ANSWER], GENERATOR)) == [
        {
            "session_id": "s1",
            "chat_history": ["Hi"],
            "model_input": "<user>Hi",
            "output": ["Hé"],
            "generator": "tiny",
            "configs": {
                "engine": "transformers",
                "repetition_penalty": 1.0,
                "temperature": 0.7,
                "top_p": 1.0,
                "max_tokens": 64,
                "seed": 3,
            },
            "dataset": "wild_bench",
            "primary_tag": "t",
        }
    ]


def test_markdown_is_counted_outside_of_code():
    text = "# One\n## Two\n## Two\n1. a\n 2. b\n- c\n**bold** and __bold__\n```\n# code\n- code\n```"
    found = markdown_counts(text)
    assert found["header_count"] == {"h1": 1, "h2": 2, "h3": 0, "h4": 0, "h5": 0, "h6": 0}
    assert found["list_count"] == {"ordered": 2, "unordered": 1}
    assert found["bold_count"] == {"**": 1, "__": 1}
