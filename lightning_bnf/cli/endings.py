"""How a command ends that something went wrong in: with a sentence, or as a bug that says so."""

import errno
import os
import select
import signal
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from platform import python_version
from typing import NoReturn

from lightning_bnf import __version__
from lightning_bnf.runtime.escapes import visible
from lightning_bnf.runtime.refusal import Refusal

_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG)
_ASKED_FOR = ("torch", "lightning", "transformers", "peft", "jsonargparse")


def end(error: Exception) -> None:
    """Ends the program with status 2 and a sentence where the user can mend what is wrong, and quietly where nobody
    reads what it prints. Returns for a bug, which then has a note on how to report it: its traceback is to be shown."""
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        raise SystemExit(128 + 13) from None  # SIGPIPE, as of `cat FILE | head`
    sentence = _sentence(error)
    if sentence is not None:
        print(f"error: {visible(sentence)}", file=sys.stderr)
        raise SystemExit(2) from error
    error.add_note(bug_note())


def end_interrupted() -> NoReturn:
    """Ends the program as Ctrl-C does, without a traceback."""
    print("\nCtrl-C: ended; what was finished before is kept", file=sys.stderr)
    raise SystemExit(128 + signal.SIGINT) from None


def bug_note() -> str:
    """What stands below the traceback of an error that nobody expected."""
    versions = [f"Python {python_version()}", *(f"{name} {_version(name)}" for name in _ASKED_FOR)]
    return (
        f"\nUnless the last lines above are of code of your own, this is a bug of lightning_bnf {__version__}: please "
        f"report it with all these lines, the command and its config ({', '.join(versions)})."
    )


def _sentence(error: Exception) -> str | None:
    """An input that was refused, a run that stopped at numbers that are not finite, a disk that does not take it, or a
    Python that is not the one which the package was installed for."""
    if isinstance(error, Refusal):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (missing := [name for name in _ASKED_FOR if find_spec(name) is None]):
        return (
            f"{', '.join(missing)} must be installed for {sys.executable}, which has none; a clone's `make setup` "
            "installs all into .venv: `source .venv/bin/activate`, or call .venv/bin/python"
        )
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        return f"{error.filename or 'a file'} cannot be used ({error.strerror}); what was finished before is kept"
    if type(error).__name__ == "DistNetworkError" and "EADDRINUSE" in str(error):  # torch's
        return f"MASTER_PORT must be a port that is free, got {os.environ.get('MASTER_PORT')} (EADDRINUSE)"
    from lightning_bnf.training.checks import NonFiniteError  # with torch, which is not needed to refuse

    return str(error) if isinstance(error, NonFiniteError) else None


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader has gone; it is led to nowhere then, as Python flushes it last."""
    number = sys.stdout.fileno()
    watch = select.poll()
    watch.register(number, 0)  # errors are told without being asked for
    gone = bool(watch.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return gone


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
