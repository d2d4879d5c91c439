"""Commands of documents in processes that have imported the package from a wheel: `python -P page_commands.py WHEEL`.

Each line of standard input asks for a page's commands in a folder and environment, as JSON; a fork of this process runs
them in order and writes what they say to a log; its status goes to standard output. It imports nothing of the clone.
"""

import json
import os
import sys
import traceback
from importlib import import_module
from typing import Any

IMPORTED = ("cli.trainer_commands", "cli.export", "cli.cache", "preparation.prepare", "judging.command")


def run(commands: list[list[str]], folder: str, environment: dict[str, str], log: str) -> int:
    """In the fork; the status to end with."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    from lightning_bnf.cli.main import main

    for words in commands:
        print("$", *words, file=sys.stderr)
        try:
            main(words)
        except SystemExit as stop:
            if stop.code:
                return 1
        except BaseException:
            traceback.print_exc()
            return 1
    print(len(commands), "commands ran")
    return 0


def serve(wheel: str) -> None:
    import lightning_bnf

    assert str(lightning_bnf.__file__).startswith(wheel), lightning_bnf.__file__
    for name in IMPORTED:
        import_module(f"lightning_bnf.{name}")
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = run(**asked)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
