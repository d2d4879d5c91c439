"""Processes of their own that have imported everything before: forks of one server, which did, instead of interpreters
that import for 8 seconds each.

A fork has a session, folder, environment, arguments and output of its own, is reached by signals and ends with its own
status, as what `subprocess` starts. What only a new interpreter shows (that a command starts at all, another seed of
hashes) is tested with one, a test of each kind. What a library reads from the environment when it is imported is the
server's.
"""

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch.multiprocessing as mp

IMPORTED = [
    *("lightning_bnf.cli.trainer_commands", "lightning_bnf.cli.export", "lightning_bnf.cli.cache"),
    *("lightning_bnf.preparation.prepare", "lightning_bnf.judging.command", "lightning_bnf.policies.sharding"),
    *("transformers.models.llama.modeling_llama", "peft", "datasets"),
]
ENVIRONMENT = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
"""The server's: that of before any test."""


def process(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """One that calls a module's function, not yet started."""
    serve()
    return multiprocessing.get_context("forkserver").Process(target=function, args=arguments)


def run_ranks(function: Callable[..., None], arguments: Sequence[Any], number: int) -> None:
    """`torch.multiprocessing.spawn`: so many processes, each called with its rank and the arguments, in the environment
    of this one; an error of one ends all and is raised."""
    serve()
    mp.start_processes(_rank, (dict(os.environ), function, *arguments), number, start_method="forkserver")


class Forked:
    """`python -m lightning_bnf` with these words; its standard output and error go into one text."""

    def __init__(self, *words: str):
        handle, name = tempfile.mkstemp(prefix="forked-")
        os.close(handle)
        self._log = Path(name)
        self._process = process(_command, words, os.getcwd(), dict(os.environ), name)
        self._process.start()
        _begun.append(self)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Minus the signal's number, where one ended it; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; all that it said. Raises what `subprocess` does where the time is over."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("lightning_bnf", timeout or 0)
        return self._log.read_text(), None

    def kill(self) -> None:
        """With all that it has started."""
        if self.returncode is None:
            for kill in (os.kill, os.killpg):  # it may not have its own group yet
                with contextlib.suppress(ProcessLookupError):
                    kill(self.pid, signal.SIGKILL)
        self._process.join()


_begun: list[Forked] = []


@atexit.register
def clear_away() -> None:
    """What is left of commands: those that a failed test did not end, and what they said."""
    while _begun:
        one = _begun.pop()
        one.kill()
        one._log.unlink(missing_ok=True)


def serve() -> None:
    """Start the server, once."""
    forkserver.set_forkserver_preload(IMPORTED)
    with patch.dict(os.environ, ENVIRONMENT, clear=True):
        forkserver.ensure_running()


def _own(environment: dict[str, str]) -> None:
    """In the fork: what it has of the server and multiprocessing, and is to have of who asked for it."""
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # loaders' workers start as they do in a command


def _rank(rank: int, environment: dict[str, str], function: Callable[..., None], *arguments: Any) -> None:
    _own(environment)
    function(rank, *arguments)


def _command(words: Sequence[str], folder: str, environment: dict[str, str], log: str) -> None:
    os.setsid()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)
    os.chdir(folder)
    _own(environment)
    sys.argv = ["lightning_bnf", *words]
    try:
        runpy.run_module("lightning_bnf", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
