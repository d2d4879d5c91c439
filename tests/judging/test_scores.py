"""The verb `scores`: from folders and published files to a table, as typed."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from support.endpoint import Endpoint
from support.judges import by_server, fair, judge

from lightning_bnf.cli.main import main

pytestmark = pytest.mark.slow


def test_own_and_published_models_stand_in_one_table(
    sides: tuple[str, str], tmp_path: Path, endpoint: Endpoint, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    endpoint.script = fair
    judge(sides, tmp_path / "out", *by_server(endpoint.url))
    games = [{"score": "B>A"}, {"score": "A=B"}]
    rows = [{"question_id": f"q{i}", "model": "theirs", "judge": "gpt-4", "games": games} for i in range(5)]
    Path("theirs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    main(["scores", "out", "theirs.jsonl", "--output", "table"])
    shown = capsys.readouterr().out
    assert "| arena_hard_v0.1 | mine   | WR (%)" in shown
    assert "75.0" in shown
    assert "not the benchmark's prompt" in shown
    assert "| arena_hard_v0.1 by judge-2026-01-01 |" in shown
    assert Path("table/scores.md").read_text() in shown
    with Path("table/scores.csv").open() as file:
        held = {row["model"]: row for row in csv.DictReader(file) if row["measure"] == "WR (%)"}
    assert (float(held["mine"]["value"]), held["mine"]["n"], held["mine"]["missing"]) == (75, "12", "0")
    assert (float(held["theirs"]["value"]), held["theirs"]["judge"]) == (75, "gpt-4")
    assert {one["model"] for one in json.loads(Path("table/scores.json").read_text())["scores"]} == {"mine", "theirs"}
    assert Path("table/scores.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_and_other_folders_are_refused(tmp_path: Path, capsys: Any) -> None:
    for words, sentence in (
        ([], "judgments must be"),
        ([str(tmp_path)], "judgments must be a folder that `judge` wrote"),
    ):
        with pytest.raises(SystemExit):
            main(["scores", *words, "--output", str(tmp_path / "out"), *(() if words else ("--judgments", "[]"))])
        assert sentence in capsys.readouterr().err
