"""The folder of judgments: lines that stay, a game's last attempt, and what is counted."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lightning_bnf.judging.folder import Judgment, JudgmentFolder, counted, last_attempts

SETTINGS: dict[str, Any] = {
    "benchmark": "arena_hard_v0.1",
    "model": "m",
    "baseline": "b",
    "judge": {"model": "j"},
    "prompt": {"hash": "0"},
    "server": "http://one/v1",
}
ASKED = [{"question": "q", "answers": "1"}]


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    folder = JudgmentFolder(tmp_path / "out", SETTINGS, ASKED)
    key = folder.key("q", 0)
    folder.add(key, Judgment("q", 0, False, 0, "j", "text", "A>B", None, cost=0.5))
    again = JudgmentFolder(tmp_path / "out", SETTINGS | {"server": "http://two/v1"}, ASKED)
    assert key in again
    assert (again.get(key)["verdict"], again.spent(), len(again.lines())) == ("A>B", 0.5, 1)
    changed = JudgmentFolder(tmp_path / "out", SETTINGS, [{"question": "q", "answers": "2"}])
    assert (changed.lines(), changed.spent()) == ([], 0.5)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    JudgmentFolder(tmp_path / "out", SETTINGS, ASKED)
    with pytest.raises(ValueError, match="which has another prompt"):
        JudgmentFolder(tmp_path / "out", SETTINGS | {"prompt": {"hash": "1"}}, ASKED)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="which holds thesis"):
        JudgmentFolder(tmp_path / "mine", SETTINGS, ASKED)


def test_the_last_attempt_counts() -> None:
    lines = [
        {"question": "q", "game": 0, "attempt": 1, "verdict": "A>B", "preference": None, "reason": None},
        {"question": "q", "game": 0, "attempt": 0, "verdict": None, "preference": None, "reason": "prose"},
        {"question": "q", "game": 1, "attempt": 0, "verdict": None, "preference": None, "reason": "prose"},
    ]
    assert [line["attempt"] for line in last_attempts(lines)] == [1, 0]
    assert counted(lines, Counter({"status 500": 2})) == "1 verdicts; 1 without: prose; 2 failed: status 500"
