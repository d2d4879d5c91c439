"""A rank whose first process has died ends, before it has met the others."""

import os
import subprocess
import sys
import time

import pytest

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
