"""Processes that are started for others: the cores they may use, and how one ends that is told to."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDS_WITH_PARENT = "LIGHTNING_BNF_ENDS_WITH_PARENT"
"""An environment variable: a command that is started with it ends when the process that started it has died."""


def end_with_parent(seconds: float = 5.0) -> None:
    """Watch, every so many seconds, whether the process that started this one is still there, and end when it is not:
    a rank would wait for the others for ever."""
    threading.Thread(target=_watch, args=(os.getppid(), seconds), daemon=True).start()


def _watch(parent: int, seconds: float) -> None:
    while os.getppid() == parent:
        threading.Event().wait(seconds)
    print(f"the first process of this node ({parent}) has died, so this one ends", flush=True)
    os._exit(1)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Inside, SIGTERM ends this process as an exception does, so that nothing unfinished is left behind, with the
    status 143 that shells and queues know it by. Python's own way leaves everything as it is at that moment.

    Nothing is changed where SIGTERM is somebody else's, nor outside of the main thread.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, end_now)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_now(number: int, frame: FrameType | None) -> None:
    """The handler of a signal that ends the process: raises SystemExit with the status of that signal."""
    os.write(2, f"\n{signal.Signals(number).name}: ended; what was finished before is kept\n".encode())
    raise SystemExit(128 + number)
