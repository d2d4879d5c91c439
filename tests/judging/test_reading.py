"""Folders as arrays: from the judge's view of A and B to the model's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.endpoint import Endpoint
from support.judges import by_server, fair, judge

from lightning_bnf.judging.folder import Judgment, JudgmentFolder
from lightning_bnf.judging.reading import as_games, column, preferences, read_folder

SETTINGS: dict[str, Any] = {
    "benchmark": "arena_hard_v0.1",
    "rules": "r",
    "model": "m",
    "baseline": "b",
    "judge": {"model": "j"},
    "prompt": {"name": "p", "source": "s", "hash": "0"},
}
ASKED = [
    {"question": "q0", "answers": "1", "own_style": [5, 1, 0, 0], "base_style": [3, 0, 0, 0], "own_characters": 50},
    {"question": "q1", "answers": "1", "own_style": [None, 0, 0, 0], "base_style": [3, 0, 0, 0]},
]


def folder(path: Path, judges: tuple[str, str] = ("j1", "j1")) -> Path:
    held = JudgmentFolder(path, SETTINGS, ASKED)
    held.add("a", Judgment("q0", 0, False, 0, judges[0], "", "A>>B", None))
    held.add("b", Judgment("q0", 1, True, 0, judges[1], "", "A>B", None))
    held.add("c", Judgment("q1", 0, False, 0, judges[1], "", None, "prose"))
    return path


def test_verdicts_are_the_models_and_what_was_not_judged_is_missing(tmp_path: Path) -> None:
    found = read_folder(folder(tmp_path / "out"))
    games = as_games(found)
    assert (found.judge, found.prompt) == ("j1", "p (s)")
    assert games.verdict.tolist() == pytest.approx([-2, 1, np.nan, np.nan], nan_ok=True)
    assert dict(found.reasons) == {"prose": 1, "not judged": 1}
    assert games.style[0].tolist() == [5, 1, 0, 0]
    assert np.isnan(games.style[2, 0])
    assert column(found, "own_characters").tolist() == pytest.approx([50, 50, np.nan, np.nan], nan_ok=True)
    assert np.isnan(preferences(found)).all()


def test_two_judges_and_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="judgments must be by one judge, got j1, j2"):
        read_folder(folder(tmp_path / "out", ("j1", "j2")))
    with pytest.raises(ValueError, match="judgments must be a folder that `judge` wrote"):
        read_folder(tmp_path)


@pytest.mark.slow
def test_what_judge_writes_is_read(sides: tuple[str, str], tmp_path: Path, endpoint: Endpoint) -> None:
    """Mine loses three of twelve, in both orders."""
    endpoint.script = fair
    found = read_folder(judge(sides, tmp_path / "out", *by_server(endpoint.url)))
    games = as_games(found)
    assert (games.outcome.sum(), len(games)) == (18, 24)
    assert found.own_prompt
    assert json.loads((tmp_path / "out/judge.json").read_text())["prompt"]["licence"] == "Apache-2.0"
