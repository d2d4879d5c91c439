"""Requests under way at once: all done, once each, and where a failure ends them."""

import threading
from collections import Counter

import pytest

from lightning_bnf.generation import requests
from lightning_bnf.generation.requests import at_once
from lightning_bnf.generation.server import Server, ServerError, Unreachable

A, B = (Server(f"http://{name}:1/v1", "big", at_once=2) for name in "ab")


def test_every_request_is_made_once_and_each_server_has_no_more_under_way_than_its_own() -> None:
    lock, under_way, most, kept = threading.Lock(), Counter[str](), Counter[str](), {}

    def work(server: Server, index: int) -> str:
        with lock:
            under_way[server.base_url] += 1
            most[server.base_url] = max(most[server.base_url], under_way[server.base_url])
        with lock:
            under_way[server.base_url] -= 1
        return f"{index}!"

    at_once(work, [A, B], range(40), 40, kept.__setitem__)
    assert kept == {index: f"{index}!" for index in range(40)}
    assert max(most.values()) <= 2


def test_what_a_server_that_goes_away_had_is_done_by_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "PAUSE", 0.01)
    first, kept = threading.Event(), {}

    def work(server: Server, index: int) -> str:
        if server == A and first.is_set():
            raise Unreachable("away")
        if server == A:
            first.set()
        assert first.wait(60)
        return server.base_url

    at_once(work, [A, B], range(8), 8, kept.__setitem__)
    assert sorted(kept) == list(range(8))


def test_another_failure_ends_them_and_what_was_answered_is_kept() -> None:
    kept: dict[int, int] = {}

    def work(server: Server, index: int) -> int:
        if index == 2:
            raise ServerError("refused")
        return index

    one = Server("http://a:1/v1", "big", at_once=1)
    with pytest.raises(ServerError, match="refused"):
        at_once(work, [one], range(5), 5, kept.__setitem__)
    assert {0, 1} <= set(kept)
    assert 2 not in kept


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "PAUSE", 0.01)

    def work(server: Server, index: int) -> int:
        if index:
            raise Unreachable("away")
        return index

    with pytest.raises(Unreachable):
        at_once(work, [Server("http://a:1/v1", "big", at_once=1, patience=0.02)], range(3), 3, {}.__setitem__)
