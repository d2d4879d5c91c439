"""Requests over several servers: no more at a server than it takes, and one that goes away is waited for."""

import threading
from collections import Counter

import pytest

from lightning_bnf.generation import requests
from lightning_bnf.generation.requests import ServerPool
from lightning_bnf.generation.server import Server, ServerError, Unreachable
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.workers import at_once

A, B = (Server(f"http://{name}:1/v1", "big", at_once=2) for name in "ab")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "PAUSE", 0.01)


def test_each_server_has_no_more_under_way_than_it_takes() -> None:
    lock, under_way, most, kept = threading.Lock(), Counter[str](), Counter[str](), dict[int, str]()

    def work(server: Server) -> str:
        with lock:
            under_way[server.base_url] += 1
            most[server.base_url] = max(most[server.base_url], under_way[server.base_url])
        with lock:
            under_way[server.base_url] -= 1
        return server.base_url

    pool = ServerPool([A, B], 1.0)
    assert pool.workers == 4
    at_once(lambda index: pool.run(work), range(40), 9, Progress(40, None), kept.__setitem__)
    assert sorted(kept) == list(range(40))
    assert max(most.values()) <= 2


def test_the_first_requests_go_to_all_servers() -> None:
    pool = ServerPool([A, B], 1.0)
    assert [pool.run(lambda server: server) for _ in range(4)] == [A, B, A, B]


def test_one_that_goes_away_and_returns_is_asked_again() -> None:
    """It answers once, is away for two requests, and is there again."""
    told = iter([True, False, False, True])

    def work(server: Server) -> str:
        if not next(told):
            raise Unreachable("away")
        return "here"

    pool = ServerPool([Server("http://a:1/v1", "big", at_once=1)], 600.0)
    assert [pool.run(work), pool.run(work)] == ["here", "here"]


def test_that_it_is_away_is_said_once_and_again_when_it_went_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Of four requests at once each finds it away; then it answers, and is away for one more."""
    together = threading.Barrier(4, timeout=300)
    left, lock = Counter(away=4), threading.Lock()

    def work(server: Server) -> str:
        with lock:
            left["away"] -= 1
            away = left["away"] >= 0
        if away:
            if left["more"] == 0:
                together.wait()
            raise Unreachable("away")
        return "here"

    pool = ServerPool([Server("http://a:1/v1", "big", at_once=4)], 600.0)
    pool.run(lambda server: "here")
    at_once(lambda index: pool.run(work), range(4), 4, Progress(4, None), lambda index, text: None)
    assert capsys.readouterr().err.count("is away") == 1
    left.update(away=1 - left["away"], more=1)
    pool.run(work)
    assert capsys.readouterr().err.count("is away") == 1


def test_what_it_had_is_done_by_the_other() -> None:
    first = threading.Event()

    def work(server: Server) -> str:
        if server == A and first.is_set():
            raise Unreachable("away")
        first.set()
        return server.base_url

    pool = ServerPool([A, B], 600.0)
    assert pool.run(work) == A.base_url
    assert [pool.run(work) for _ in range(6)] == [B.base_url] * 6


@pytest.mark.parametrize(("answers", "patience"), [(0, 600.0), (1, 0.02)])
def test_one_that_never_answered_is_not_waited_for_and_patience_ends(answers: int, patience: float) -> None:
    left = [answers]

    def work(server: Server) -> str:
        left[0] -= 1
        if left[0] < 0:
            raise Unreachable("away")
        return "here"

    pool = ServerPool([Server("http://a:1/v1", "big", at_once=1)], patience)
    for _ in range(answers):
        pool.run(work)
    with pytest.raises(Unreachable):
        pool.run(work)


def test_another_failure_is_raised_and_ends_waiting() -> None:
    def refused(server: Server) -> str:
        raise ServerError("refused")

    def away(server: Server) -> str:
        raise Unreachable("away")

    pool = ServerPool([A], 600.0)
    pool.run(lambda server: "here")
    with pytest.raises(ServerError, match="refused"):
        pool.run(refused)
    with pytest.raises(Unreachable):
        pool.run(away)
