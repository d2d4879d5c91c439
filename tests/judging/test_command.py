"""The verb `judge`: what it refuses, a dry run, folders that never mix."""

from pathlib import Path
from typing import Any

import pytest
from support.endpoint import Endpoint
from support.judges import by_server, fair, judge, stored

from lightning_bnf.judging.command import judge as verb
from lightning_bnf.judging.server_judge import JudgeServer

pytestmark = pytest.mark.slow
SERVER = JudgeServer("http://127.0.0.1:9/v1", "judge")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"server": None}, "server, scorer, source: one of them must be given, got none"),
        ({"source": "x"}, "got server and source"),
        ({"baseline": None}, "baseline must be the answers of gpt-4-0314 for arena_hard_v0.1, got None"),
        ({"benchmark": "wildbench"}, "baseline must be null for wildbench"),
        ({"prompt": None}, "prompt must be a checkout of Arena-Hard v0.1"),
        ({"max_cost": 1.0}, "max_cost must come with server.price_in and server.price_out, got 1 without"),
        ({"server": JudgeServer("http://h/v1", "m", "NOT_SET_ANYWHERE")}, "must name a variable that is set"),
        ({"benchmark": "arena"}, "benchmark must be 'pairs', 'arena_hard_v0.1'"),
    ],
)
def test_refusals(sides: tuple[str, str], tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    arguments = {"benchmark": "arena_hard_v0.1", "answers": sides[0], "baseline": sides[1], "server": SERVER}
    with pytest.raises(ValueError, match=sentence):
        verb(output=tmp_path / "out", **(arguments | {"prompt": "own"} | changes))
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_it_costs_and_sends_nothing(
    sides: tuple[str, str], tmp_path: Path, endpoint: Endpoint, capsys: Any
) -> None:
    words = ["--server.price_in", "1", "--server.price_out", "2", "--dry_run", "true"]
    judge(sides, tmp_path / "out", *by_server(endpoint.url, *words))
    shown = capsys.readouterr().out
    assert "24 calls, " in shown
    assert "at most 98304 written; at most about 0.20" in shown
    assert "12 questions, 24 games; nothing was judged" in shown
    assert not endpoint.seen
    assert not (tmp_path / "out").exists()


def test_another_judge_prompt_or_model_never_meets_old_judgments(
    sides: tuple[str, str], tmp_path: Path, endpoint: Endpoint, capsys: Any
) -> None:
    endpoint.script = fair
    words = by_server(endpoint.url, "--limit", "2")
    judge(sides, tmp_path / "out", *words)
    other = [*words]
    other[other.index("judge")] = "another"
    for changed, swapped, named in ((other, sides, "judge"), (words, sides[::-1], "model, another baseline")):
        with pytest.raises(SystemExit):
            judge(swapped, tmp_path / "out", *changed)
        assert f"which has another {named}" in capsys.readouterr().err
    rows = Path(sides[0]).read_text()
    Path(sides[0]).write_text(rows.replace("good and long.", "good and new."))
    asked = len(endpoint.seen)
    judge(sides, tmp_path / "out", *words)
    assert len(endpoint.seen) == asked + 2, "q1 was answered anew"
    assert "4 verdicts; in" in capsys.readouterr().out, "and its old verdicts are not counted"
    assert len(stored(tmp_path / "out")) == 6
