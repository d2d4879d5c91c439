"""Work that keeps a core busy, in processes of its own: in order, and a bounded part of it at once."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, Literal, TypeVar

from lightning_bnf.runtime.processes import cores

Piece = TypeVar("Piece")
Made = TypeVar("Made")

MOST = 8  # by themselves: each takes some 0.2 GB, and the process that they work for has to keep up
START = "spawn"  # new interpreters: a fork of a process with threads may hang, and Windows knows none
_AHEAD = 2  # pieces for each process, so that none waits for the next


def processes_for(number: int | Literal["auto"], ranks: int = 1) -> int:
    """How many processes are meant: `auto` is one for each core, `MOST` at most, shared by so many ranks. One where no
    more can be started."""
    if multiprocessing.current_process().daemon:  # which may have no children
        return 1
    if number != "auto":
        return number
    return max(1, min(MOST, cores() // ranks))


def in_order(work: Callable[[Piece], Made], pieces: Iterable[Piece], processes: int) -> Generator[Made, None, None]:
    """What `work` makes of each piece, in their order, by so many processes; by this one where that is one.

    `work` is sent to each process once; it, the pieces and what is made of them have to be picklable. No more pieces
    are read ahead than keep the processes busy. What is raised in one of them is raised here, and where this process
    ends, however it does, they end.
    """
    if processes == 1:
        yield from map(work, pieces)
        return
    left, before = iter(pieces), set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context(START), initializer=_begin, initargs=(work,))
    waiting: deque[Future[Made]] = deque()
    started: list[BaseProcess] = []
    try:
        for piece in islice(left, _AHEAD * processes):
            waiting.append(_submit(pool, piece))
            started = [one for one in multiprocessing.active_children() if one not in before]
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(_submit(pool, piece) for piece in islice(left, 1))
            yield made
    except BrokenProcessPool as error:
        pool.shutdown()
        # -15 of those that the first one's end has ended
        codes = ", ".join(str(one.exitcode) for one in started) or "unknown codes"
        raise RuntimeError(
            f"one of {processes} processes ended before its work was done, such as for want of memory (-9): they ended"
            f" with {codes}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, piece: Any) -> "Future[Any]":
    with _main_hidden():
        return pool.submit(_work, piece)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """A new interpreter runs the main module first, to know what it defines: a script without
    `if __name__ == "__main__"` would begin anew in each. Nothing of it is needed here."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_held: list[Callable[[Any], Any]] = []


def _begin(work: Callable[[Any], Any]) -> None:
    """In a process of the pool, before its first piece."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the cores are busy
    _held[:] = [work]


def _end_with_parent() -> None:
    """A process that is killed does not tell its pool, which would wait for more for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(piece: Any) -> Any:
    return _held[0](piece)
