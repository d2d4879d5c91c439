"""Work that mostly waits, such as for a server: a bounded number at once, and nothing lost that was done."""

import contextlib
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

from lightning_bnf.runtime.progress import Progress, say

Done = TypeVar("Done")


def at_once(
    work: Callable[[int], Done], todo: Sequence[int], workers: int, bar: Progress, keep: Callable[[int, Done], None]
) -> None:
    """`keep` results as they come, in this thread. After a failure, or where this process is told to end, nothing new
    is begun; what is under way, which may be paid for, is kept before it is raised. Told once more it ends at once:
    daemons are not waited for."""
    waiting: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, Done | BaseException]] = SimpleQueue()
    for index in todo:
        waiting.put(index)
    threads = [Thread(target=_work, args=(work, waiting, done), daemon=True) for _ in range(min(workers, len(todo)))]
    failure: BaseException | None = None
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or not done.empty():
        try:
            index, result = done.get(timeout=0.1)
            if isinstance(result, BaseException):
                raise result
            keep(index, result)
            bar.update()
        except Empty:
            continue
        except BaseException as error:
            if failure is not None and not isinstance(error, Exception):
                raise
            if not isinstance(error, Exception):
                say("requests that are under way are waited for; once more ends at once")
            failure = failure or error
            _drain(waiting)
    if failure:
        raise failure


def _work(
    work: Callable[[int], Done], waiting: "SimpleQueue[int]", done: "SimpleQueue[tuple[int, Done | BaseException]]"
) -> None:
    while True:
        try:
            index = waiting.get_nowait()
        except Empty:
            return
        try:
            done.put((index, work(index)))
        except BaseException as error:  # raised again where it is waited for
            done.put((index, error))


def _drain(queue: "SimpleQueue[int]") -> None:
    with contextlib.suppress(Empty):
        while True:
            queue.get_nowait()
