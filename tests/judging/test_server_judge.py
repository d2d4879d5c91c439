"""A judge behind a server that answers by script: every failure is counted and named, nothing is paid for twice."""

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
from support.endpoint import Endpoint
from support.judges import by_server, fair, judge, sent, stored, verdict_of

from lightning_bnf.generation import server
from lightning_bnf.judging.server_judge import Budget, JudgeServer, OutOfBudget

pytestmark = pytest.mark.slow

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def test_both_orders_are_judged_and_every_reply_is_a_line(
    sides: tuple[str, str], tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The key is in no file, and nowhere in what is printed."""
    monkeypatch.setenv("MY_KEY", KEY)
    endpoint.script = fair
    words = ["--server.api_key_variable", "MY_KEY", "--server.price_in", "1", "--server.price_out", "2"]
    found = stored(judge(sides, tmp_path / "out", *by_server(endpoint.url, *words)))
    assert [(line["question"], line["game"], line["first"]) for line in found[:2]] == [
        ("q0", 0, False),
        ("q0", 1, True),
    ]
    assert {line["judge"] for line in found} == {"judge-2026-01-01"}
    assert (len(found), found[0]["verdict"], found[2]["verdict"]) == (24, "A>B", "B>>A"), (
        "mine is bad at q0, good at q1"
    )
    assert (found[0]["tokens_in"], found[0]["tokens_out"], found[0]["cost"]) == (100, 10, 120 / 1e6)
    path, body, key = endpoint.seen[0]
    assert (path, key, body["temperature"], body["max_tokens"]) == ("/v1/chat/completions", f"Bearer {KEY}", 0, 4096)
    shown = capsys.readouterr()
    assert "24 calls, " in shown.out
    assert "24 verdicts; in" in shown.out
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert all(KEY not in text for text in [shown.out, shown.err, *files])


def test_busy_broken_and_odd_servers(
    sides: tuple[str, str], tmp_path: Path, endpoint: Endpoint, capsys: Any, waits: list[float]
) -> None:
    """429 with Retry-After is waited for; 500, malformed JSON, another shape and prose are counted and named; what
    failed, and it alone, is asked again by the next run."""
    endpoint.retry_after = "3"
    endpoint.replies = [(429, {}), sent("[[A>B]]"), (500, {}), (500, {}), (200, b"{malformed"), (200, {"choices": []})]
    endpoint.replies += [sent("I like A"), sent("still A"), sent("I like"), sent("[[A>B]]")]
    endpoint.replies += [sent("[[A>B]] or [[B>A]]"), sent("I am cut", finish="length"), sent("off", finish="length")]
    endpoint.script = fair
    words = by_server(endpoint.url, "--server.tries", "2", "--server.timeout", "30")
    judge(sides, tmp_path / "out", *words)
    assert 3 in waits
    shown = capsys.readouterr().out
    for part in (
        "18 verdicts",
        "1 without: several different verdicts",
        "1 without: no verdict in the text",
        "1 failed: ",
    ):
        assert part in shown, shown
    assert "status 500" in shown
    assert "{malformed" in shown
    assert "no verdict in the text, cut off at 4096 tokens" in shown
    first, asked = stored(tmp_path / "out"), len(endpoint.seen)
    assert [line["attempt"] for line in first if line["text"] in ("I like", "[[A>B]]")] == [0, 0, 1], "asked to finish"
    judge(sides, tmp_path / "out", *words)
    assert len(endpoint.seen) - asked == 3, "the games of the failures: 500, malformed, another shape"
    assert stored(tmp_path / "out")[: len(first)] == first
    judge(sides, tmp_path / "out", *words)
    assert len(endpoint.seen) - asked == 3


def test_requests_that_take_too_long_are_counted_and_asked_again(
    sides: tuple[str, str], tmp_path: Path, endpoint: Endpoint, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both games of q2 get no answer within the time, as the client's own limit says it: no clock is waited for."""

    def slow(kind: Any, seconds: float, late: type[Exception]) -> Any:
        class Slow(kind):
            def send(self, request: Any, **options: Any) -> Any:
                if b"Question q2?" in request.content:
                    raise late(f"a reply that took longer than {seconds} s")
                return super().send(request, **options)

        return Slow

    endpoint.script = fair
    words = by_server(endpoint.url, "--server.tries", "2", "--server.timeout", "30")
    with monkeypatch.context() as patched:
        patched.setattr(server, "_hurried", slow)
        judge(sides, tmp_path / "out", *words)
    shown = capsys.readouterr().out
    assert re.search(r"22 verdicts; 2 failed: .* a reply that took longer than 30\.0 s; tried 2 times", shown), shown
    first = stored(tmp_path / "out")
    assert (len(first), len(endpoint.seen)) == (22, 22)
    server.client.cache_clear()
    judge(sides, tmp_path / "out", *words)
    found = stored(tmp_path / "out")
    assert (found[:22], [line["question"] for line in found[22:]]) == (first, ["q2", "q2"])
    assert len(endpoint.seen) == 24


def test_a_server_that_is_gone_stops_the_run(
    sides: tuple[str, str], tmp_path: Path, endpoint: Endpoint, capsys: Any
) -> None:
    endpoint.script = lambda body: (401, {"error": "no"})
    with pytest.raises(SystemExit):
        judge(sides, tmp_path / "out", *by_server(endpoint.url, "--server.tries", "1"))
    assert len(endpoint.seen) in (10, 11), "what is under way is waited for"
    assert re.search("; 1[01] failed: ", capsys.readouterr().out)


def letters(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The better letter with 0.8; without log-probs at q3, with others at q5."""
    prompt = body["messages"][-1]["content"]
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 5, 1)
    if "Question q3?" in prompt:
        return sent("A", finish="length")
    said = verdict_of(prompt)
    best, other = ("A", "B") if "A>B" in said else ("B", "A")
    listed = [(best, 0.8), (other, 0.2)] if "Question q5?" not in prompt else [("The", 0.9)]
    held = [{"token": token, "logprob": math.log(p)} for token, p in listed]
    status, reply = sent(best, finish="length")
    reply["choices"][0]["logprobs"] = {"content": [{"token": best, "top_logprobs": held}]}
    return status, reply


def test_alpaca_evals_preferences_are_read_from_log_probs(
    sides: tuple[str, str], tmp_path: Path, endpoint: Endpoint, capsys: Any
) -> None:
    endpoint.script = letters
    found = stored(judge(sides, tmp_path / "out", *by_server(endpoint.url), benchmark="alpaca_eval_2"))
    held = {line["question"]: line["preference"] for line in found}
    assert held["q1"] == pytest.approx(1.8)
    assert held["q0"] == pytest.approx(1.2)
    assert held["q3"] is held["q5"] is None
    shown = capsys.readouterr().out
    assert "10 verdicts; 1 without: no log-probs in the reply; 1 without: neither token among the log-probs" in shown


def test_the_budget_is_never_exceeded(sides: tuple[str, str], tmp_path: Path, endpoint: Endpoint, capsys: Any) -> None:
    """120 a call at most 4096 x 2 + its prompt's bytes: the run stops when the next one could go beyond 0.012."""
    endpoint.script = fair
    words = by_server(endpoint.url, "--server.price_in", "1", "--server.price_out", "2", "--max_cost", "0.0099")
    for _ in range(2):
        with pytest.raises(SystemExit):
            judge(sides, tmp_path / "out", *words)
    spent = sum(line["cost"] for line in stored(tmp_path / "out"))
    assert 0 < spent < 0.0099
    assert "max_cost must be more to go on" in capsys.readouterr().err
    asked = len(endpoint.seen)
    judge(sides, tmp_path / "out", *words[:-1], "1")
    assert len(stored(tmp_path / "out")) == 24
    assert len(endpoint.seen) == 24 >= asked


def test_a_budget_counts_what_is_under_way() -> None:
    budget = Budget(1.0, spent=0.5)
    budget.reserve(0.4)
    with pytest.raises(OutOfBudget, match=r"0\.5000 are spent, and the next request may cost 0\.2000, got 1"):
        budget.reserve(0.2)
    budget.settle(0.4, 0.1)
    budget.reserve(0.4)
    Budget(None).reserve(1e9)


def test_prices_are_a_million_tokens() -> None:
    assert JudgeServer("http://host/v1", "m", price_in=2.0, price_out=4.0).cost(500_000, 250_000) == 2
    assert JudgeServer("http://host/v1", "m").cost(1, 1) is None


def test_scores_are_asked_as_json(tmp_path: Path, endpoint: Endpoint) -> None:
    turns = [{"role": "user", "content": "Say hi"}]
    asked = [{"session_id": f"s{i}", "conversation_input": turns, "primary_tag": "Math"} for i in range(2)]
    said = [{"session_id": f"s{i}", "output": [text], "generator": "m"} for i, text in enumerate(["Hi", ""])]
    for name, rows in (("q", asked), ("a", said)):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    endpoint.script = lambda body: sent('{"score": "7"}')
    from lightning_bnf.cli.main import main

    words = [
        "judge",
        "--benchmark",
        "wildbench",
        "--answers",
        str(tmp_path / "a.json"),
        "--output",
        str(tmp_path / "out"),
    ]
    main([*words, "--questions", str(tmp_path / "q.json"), *by_server(endpoint.url)])
    assert sorted((line["question"], line["verdict"]) for line in stored(tmp_path / "out")) == [
        ("s0", "7"),
        ("s1", "1"),
    ]
    ((_, body, _),) = endpoint.seen
    assert body["response_format"] == {"type": "json_object"}
