"""Answer files of all forms, beside each other."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_bnf.judging.sides import Said, pairs, read_answers, style


def written(path: Path, rows: list[Any]) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


OLD = {
    "question_id": "q0",
    "model_id": "m",
    "choices": [{"index": 0, "turns": [{"content": "Hi", "token_len": 1}]}],
}
WILD = {"session_id": "s0", "output": ["Hi"], "generator": "m"}
ALPACA = {"instruction": "Say hi", "output": "Hi", "generator": "m"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (OLD, Said("q0", "Hi", "m", 1)),
        (WILD, Said("s0", "Hi", "m", None)),
        (ALPACA, Said("Say hi", "Hi", "m", None, "Say hi")),
    ],
)
def test_forms(tmp_path: Path, row: Any, said: Said) -> None:
    assert read_answers(written(tmp_path / "a.json", [row])) == [said]


def test_arena_hards_form_of_today(sides: tuple[str, str], tmp_path: Path) -> None:
    first = read_answers(sides[0])[0]
    assert (first.question, first.text, first.tokens) == ("q0", "bad", 3)
    rows = [json.loads(line) for line in Path(sides[0]).read_text().splitlines()]
    rows[0]["metadata"]["sampling"] = {"engine": "transformers"}
    assert read_answers(written(tmp_path / "ours.json", rows[:1]))[0].tokens is None, "the answering model's tokens"


def test_pairs_are_by_question_with_what_the_questions_file_says(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Say hi"}]
    asked = [{"session_id": "s0", "conversation_input": turns, "primary_tag": "Math", "checklist": ["is short"]}]
    (pair,) = pairs(written(tmp_path / "a.json", [WILD]), None, written(tmp_path / "q.json", asked))
    assert (pair.messages, pair.tags, pair.checklist, pair.base) == (
        ({"role": "user", "content": "Say hi"},),
        ("Math",),
        ("is short",),
        None,
    )
    with pytest.raises(ValueError, match="questions must be the benchmark's question file"):
        pairs(str(tmp_path / "a.json"), None)


def test_two_models_and_no_common_question_are_refused(tmp_path: Path) -> None:
    both = written(tmp_path / "both.json", [ALPACA, ALPACA | {"instruction": "x", "generator": "n"}])
    with pytest.raises(ValueError, match=r"must be the answers of one model, got m, n"):
        read_answers(both)
    with pytest.raises(ValueError, match="baseline must answer the same questions as answers, got none"):
        pairs(written(tmp_path / "a.json", [ALPACA]), written(tmp_path / "b.json", [ALPACA | {"instruction": "y"}]))
    with pytest.raises(ValueError, match="must be an answer as AlpacaEval, Arena-Hard or WildBench write them"):
        read_answers(written(tmp_path / "c.json", [{"uid": "u", "messages": []}]))


def test_style_counts_markdown_and_takes_the_lengths_that_are_given() -> None:
    said = Said("q", "# A\n- b\n**c**", "m", None)
    assert style(said, None) == [None, 1, 1, 1]
    assert style(said, len) == [len(said.text), 1, 1, 1]


def test_a_runs_folder_is_both_sides_of_its_own_prompts(tmp_path: Path) -> None:
    """The greedy answers; the prompts' texts are the question file's, as those of the run are rendered."""
    row = {"prompt_id": "p0", "decoding": "greedy", "prompt": "<|user|>Hi", "before": "old", "after": "new"}
    (tmp_path / "run").mkdir()
    rows = [row, row | {"decoding": "sampled", "after": "other"}]
    (tmp_path / "run/completions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    asked = written(tmp_path / "q.json", [{"prompt_id": "p0", "prompt": "Hi"}])
    (pair,) = pairs(str(tmp_path / "run"), None, asked)
    assert pair.base is not None
    assert (pair.own.text, pair.own.model, pair.base.text) == ("new", "run, after", "old")
    with pytest.raises(ValueError, match="answers must be a file, or the folder of a run with completions"):
        pairs(str(tmp_path), None)
