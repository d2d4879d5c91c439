"""Each benchmark's own question file is read, and what is none is refused in a sentence."""

import json

import pytest

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.generation.questions import read_questions

USER = {"role": "user", "content": "Hi"}


def written(tmp_path, name: str, rows: list[dict]) -> str:
    """A JSON list if the name ends in .json, else JSONL."""
    path = tmp_path / name
    path.write_text(json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_alpaca_eval(tmp_path):
    rows = [{"dataset": "helpful_base", "instruction": "Hi", "output": "Hello", "generator": "text_davinci_003"}]
    (found,) = read_questions(written(tmp_path, "alpaca_eval.json", rows))
    assert found.messages == (USER,)
    assert found.columns["dataset"] == "helpful_base"
    assert len(found.id) == 16, "no id of its own: the hash of its messages"


def test_arena_hard_of_both_years(tmp_path):
    (now,) = read_questions(written(tmp_path, "a.jsonl", [{"uid": "u1", "category": "hard", "prompt": "Hi"}]))
    old = {"question_id": "q1", "category": "hard", "cluster": "c", "turns": [{"content": "Hi"}]}
    (before,) = read_questions(written(tmp_path, "b.jsonl", [old]))
    assert (now.id, before.id) == ("u1", "q1")
    assert now.messages == before.messages == (USER,)


def test_wildbench(tmp_path):
    """Its turns carry more than role and content, and sometimes an empty system message, which says nothing."""
    turns = [
        {"role": "system", "content": ""},
        {**USER, "language": "English", "redacted": False},
        {"role": "assistant", "content": "Hello!", "language": "English"},
        {"role": "user", "content": "Bye"},
    ]
    row = {"session_id": "s1", "conversation_input": turns, "primary_tag": "Planning", "checklist": ["?"]}
    (found,) = read_questions(written(tmp_path, "w.jsonl", [row]))
    assert found.id == "s1"
    assert found.messages == (USER, {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Bye"})


def test_own_prompts_as_text_and_as_messages(tmp_path):
    one, two = read_questions(written(tmp_path, "p.jsonl", [{"prompt": "Hi", "prompt_id": "a"}, {"prompt": [USER]}]))
    assert one.messages == two.messages == (USER,)
    assert one.id == "a"


def test_a_repeated_id_is_found_in_one_pass(tmp_path):
    """30,000 questions took a minute when each id was looked for among all before it."""
    rows = [{"prompt": "Hi", "prompt_id": str(i)} for i in range(30_000)]
    path = written(tmp_path, "p.jsonl", [*rows, rows[7]])
    with pytest.raises(DataError, match="must be each id once, got '7' twice"):
        read_questions(path)


@pytest.mark.parametrize(
    ("name", "rows", "sentence"),
    [
        ("a.jsonl", [{"text": "Hi"}], r"a\.jsonl:1: the columns must be instruction .*, got text"),
        (
            "a.jsonl",
            [{"question_id": 1, "turns": [{"content": "a"}, {"content": "b"}]}],
            "must be a list of one turn, got ",
        ),
        ("a.jsonl", [{"prompt": " "}], "must be a text that is not blank, got"),
        (
            "a.jsonl",
            [{"session_id": 1, "conversation_input": [{"role": "assistant", "content": "a"}]}],
            "the roles must be .*, got assistant",
        ),
        ("a.jsonl", [{"prompt": "Hi"}, {"prompt": "Hi"}], "must be each id once, got '.*' twice"),
        ("a.json", [], "must be at least one row, got an empty file"),
        ("a.json", ["Hi"], "a.json:1: must be a JSON object, got a string: 'Hi'"),
        ("a.jsonl", [{"prompt": "Hi", "tools": [{"name": "add"}]}], "'tools' must be empty"),
        ("a.jsonl", [{"prompt": {"a": 1}}], "must be a string or a list of messages"),
    ],
)
def test_what_is_no_question_file(tmp_path, name, rows, sentence):
    with pytest.raises(DataError, match=sentence):
        read_questions(written(tmp_path, name, rows))
