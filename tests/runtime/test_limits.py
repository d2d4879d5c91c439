"""What takes too long or too much ends, and nothing of the bounds stays behind."""

import re
import resource
import signal
import threading

import pytest

from lightning_bnf.runtime.limits import limited

EVIL = re.compile("(a|a)*b")  # twice the time for each further a


def state() -> tuple[object, ...]:
    return (
        resource.getrlimit(resource.RLIMIT_AS),
        signal.getsignal(signal.SIGALRM),
        signal.getitimer(signal.ITIMER_REAL),
    )


def test_a_pattern_that_backtracks_for_ever_ends() -> None:
    before = state()
    with pytest.raises(TimeoutError), limited(seconds=0.1):
        EVIL.fullmatch("a" * 200)
    assert state() == before


def test_memory_is_bounded() -> None:
    before = state()
    with pytest.raises(MemoryError), limited(size=2**28):
        bytearray(2**30)
    assert state() == before
    with limited(size=2**28):
        bytearray(2**20)


def test_another_thread_has_no_bounds() -> None:
    """That of memory is the process's, and would stop the others."""
    before, seen = state(), []

    def work() -> None:
        with limited(seconds=10, size=2**28):
            seen.append(state()[0])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before[0]]
    assert state() == before
