"""Processes that are started for a run's further devices."""

import os
import threading


def end_with_parent(seconds: float = 5.0) -> None:
    """Watch, every so many seconds, whether the process that started this one is still there, and end when it is not:
    a rank would wait for the others for ever."""
    threading.Thread(target=_watch, args=(os.getppid(), seconds), daemon=True).start()


def _watch(parent: int, seconds: float) -> None:
    while os.getppid() == parent:
        threading.Event().wait(seconds)
    print(f"the first process of this node ({parent}) has died, so this one ends", flush=True)
    os._exit(1)
