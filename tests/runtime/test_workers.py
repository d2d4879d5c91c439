"""Work at once: all of it is kept, in whatever order it ends; after a failure what is under way is kept too."""

import threading

import pytest

from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.workers import at_once


def test_all_is_kept_and_never_more_at_once_than_said() -> None:
    kept: dict[int, int] = {}
    under_way, most, lock, both = 0, 0, threading.Lock(), threading.Barrier(2)

    def square(index: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        both.wait(300)
        with lock:
            under_way -= 1
        return index**2

    bar = Progress(6, None)
    at_once(square, range(6), 2, bar, kept.__setitem__)
    assert kept == {index: index**2 for index in range(6)}
    assert (most, bar.done) == (2, 6)


def test_after_a_failure_what_is_under_way_is_kept_and_nothing_is_begun() -> None:
    begun, kept, failed = [], {}, threading.Event()

    def work(index: int) -> int:
        begun.append(index)
        if index == 0:
            failed.set()
            raise RuntimeError("of the first")
        failed.wait(300)
        return index

    with pytest.raises(RuntimeError, match="of the first"):
        at_once(work, range(9), 2, Progress(9, None), kept.__setitem__)
    assert set(kept) == set(begun) - {0}
