"""Bounds on what runs for others: chat templates are programs that come with a model, regular expressions may take for
ever."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

try:
    import resource
except ImportError:  # Windows, which has no SIGALRM either
    resource = None  # type: ignore[assignment]

SECONDS = 10.0
BYTES = 2**31  # above what the process has already

_STATM = Path("/proc/self/statm")


@contextmanager
def limited(seconds: float = SECONDS, size: int = BYTES) -> Iterator[None]:
    """Raises TimeoutError where the block takes longer than `seconds`, and MemoryError where it asks for more than
    `size` bytes.

    The clock is SIGALRM's, which Python keeps for the main thread, and the bound on memory is the whole process's:
    elsewhere than in the main thread, and on Windows, there are none.
    """
    if resource is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _memory(size), _time(seconds):
        yield


def _ring(number: int, frame: FrameType | None) -> None:
    raise TimeoutError


@contextmanager
def _time(seconds: float) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _ring)
    left = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _memory(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(_STATM.read_bytes().split()[0]) * resource.getpagesize() if _STATM.exists() else None
    most = None if used is None else used + size
    if most is None or (soft != resource.RLIM_INFINITY and soft <= most):
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
