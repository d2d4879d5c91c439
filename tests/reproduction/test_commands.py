"""Commands in processes of their own, and the marks of finished steps."""

import os
from pathlib import Path

import pytest

from lightning_bnf.reproduction.commands import finish, finished, run_command, typed
from lightning_bnf.runtime.refusal import Refusal


def test_a_step_is_done_with_its_settings_alone(tmp_path: Path) -> None:
    mark = tmp_path / "fit.json"
    assert finished(mark, "a") is None
    assert finish(mark, "a", {"minutes": 2}) == {"fingerprint": "a", "minutes": 2}
    assert finished(mark, "a") == {"fingerprint": "a", "minutes": 2}
    with pytest.raises(Refusal, match=r"output must be another folder, or .*fit\.json and what comes after it taken"):
        finished(mark, "b")


def test_settings_are_typed_as_they_are_parsed() -> None:
    assert [typed("a.b", value) for value in ("x y", 1, None, ["x"], {"y": True})] == [
        ["--a.b", "x y"],
        ["--a.b", "1"],
        ["--a.b", "null"],
        ["--a.b", '["x"]'],
        ["--a.b", '{"y": true}'],
    ]


def test_a_command_that_fails_is_refused_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with pytest.raises(
        Refusal, match=r"mine: the run ended with status 2; see .*x\.log:\n(?s:.*)Every command explains"
    ):
        run_command(["nonsense"], log, os.environ, "mine")
    assert "there is no command 'nonsense'" in log.read_text()
