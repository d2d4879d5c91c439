"""A rank whose first process has died ends, before it has met the others; and SIGTERM ends as an exception does."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lightning_bnf.runtime.processes import ended_by_sigterm

CHILD = """
import os, time
from lightning_bnf.runtime.processes import end_with_parent
end_with_parent(0.05)
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.mark.slow
def test_a_process_ends_when_the_one_that_started_it_has() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    end = time.monotonic() + 300
    while _lives(child):
        assert time.monotonic() < end, "it is left behind"
        time.sleep(0.05)


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{number}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def test_sigterm_ends_as_an_exception_does(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, ended_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert stop.value.code == 143
    assert capfd.readouterr().err == "\nSIGTERM: ended; what was finished before is kept\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_somebody_elses_handler_stays() -> None:
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    with ended_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert told == [signal.SIGTERM]
