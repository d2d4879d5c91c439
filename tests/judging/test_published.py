"""Judgment files of the three repositories."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_bnf.generation.questions import read_questions
from lightning_bnf.judging.published import read_published
from lightning_bnf.judging.reading import as_games, preferences, scores
from lightning_bnf.judging.sides import Said


def written(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_arena_hards_with_lengths_from_answer_files(tmp_path: Path) -> None:
    row = {"uid": "q0", "model": "m", "judge": "gpt-4.1", "baseline": "b", "category": "hard_prompt"}
    games = [{"score": "A>>B"}, None]
    path = written(tmp_path / "m.jsonl", [row | {"games": games}])
    answers = {(name, "q0"): Said("q0", "# text", name, length) for name, length in (("m", 9), ("b", 4))}
    found = read_published(path, answers, {})
    assert (found.benchmark, found.model, found.baseline, found.judge) == ("arena_hard_v2", "m", "b", "gpt-4.1")
    held = as_games(found)
    assert held.verdict.tolist() == pytest.approx([-2, np.nan], nan_ok=True)
    assert held.style[0].tolist() == [9, 1, 0, 0]
    moved = row | {"games": games, "category": "arena-hard-v0.1"}
    assert read_published(written(tmp_path / "moved.jsonl", [moved]), {}, {}).benchmark == "arena_hard_v0.1"
    old = {"question_id": "q0", "model": "m", "judge": "j", "games": [{"score": "B>A"}, {"score": "A=B"}]}
    found = read_published(written(tmp_path / "old.jsonl", [old]), {}, {})
    assert (found.benchmark, found.baseline, as_games(found).verdict.tolist()) == (
        "arena_hard_v0.1",
        "gpt-4-0314",
        [1, 0],
    )
    assert np.isnan(as_games(found).style).all()


def test_wildbenchs_scores_and_pairs(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}]
    asked = [{"session_id": "s0", "conversation_input": turns, "primary_tag": "Math", "secondary_tags": ["Planning"]}]
    questions = {one.id: one for one in read_questions(str(written(tmp_path / "q.json", asked)))}
    rows = [{"session_id": "s0", "score": "7", "model_output": " abc ", "model_test": "m"}]
    rows.append(rows[0] | {"session_id": "s1", "score": "N/A"})
    found = read_published(written(tmp_path / "eval=gpt-4o/m.json", rows), {}, questions)
    assert scores(found).tolist() == pytest.approx([7, np.nan], nan_ok=True)
    assert (found.judge, found.rows["s0"]["tags"], found.rows["s0"]["own_characters"]) == (
        "gpt-4o",
        ["Math", "Planning"],
        3,
    )
    texts = {"org/m": "long one", "b": "short"}
    pair = {"session_id": "s0", "winner": "b", "extent": 2, "model_outputs": texts}
    rows = [pair, pair | {"winner": "org/m", "extent": 1}, pair | {"winner": "tie", "extent": 0}]
    found = read_published(written(tmp_path / "eval=gpt/ref=b/m.json", rows), {}, {})
    assert as_games(found, characters=True).verdict.tolist() == [-2, 1, 0]
    assert as_games(found, characters=True).style[0, 0] == 8


def test_alpaca_evals(tmp_path: Path) -> None:
    row = {"instruction": "Hi", "output_1": "ab", "output_2": "abc", "generator_1": "b", "generator_2": "m"}
    rows = [
        row | {"annotator": "weighted", "preference": value, "index": i} for i, value in enumerate((1.7, 0.0, None))
    ]
    found = read_published(written(tmp_path / "annotations.json", rows), {}, {})
    assert preferences(found).tolist() == pytest.approx([1.7, 1.5, np.nan], nan_ok=True)
    assert (found.model, found.judge, found.rows["1"]["own_characters"]) == ("m", "weighted", 3)


def test_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="judgments must be of Arena-Hard, WildBench or AlpacaEval"):
        read_published(written(tmp_path / "x.json", [{"winner": "m"}]), {}, {})
    with pytest.raises(ValueError, match="judgments must be a file as its repository writes it"):
        read_published(written(tmp_path / "y.json", [{"games": [{"score": "A>B"}]}]), {}, {})
