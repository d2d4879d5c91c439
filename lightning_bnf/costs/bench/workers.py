"""Variants in processes of their own: one takes its turn while the others wait, and memory is each one's own."""

import contextlib
import multiprocessing as mp
import os
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from lightning_bnf.runtime.memory import highest_bytes


class Turns:
    """A variant's side of the pipe: it waits for its turn, and tells how long it took.

    `wait` returns when a turn begins; `done` ends it. Where there are no more turns, `wait` raises `Over`.
    """

    def __init__(self, pipe: Connection):
        self.pipe = pipe
        self.started = 0.0

    def wait(self) -> None:
        """Block until the next turn."""
        self.pipe.send({"resting_bytes": resting_bytes()})
        if self.pipe.recv() == "stop":
            raise Over
        self.started = time.perf_counter()

    def done(self, **more: float) -> None:
        """End the turn; `more` are further numbers of it, in seconds or nats."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.started
        self.pipe.send({"seconds": seconds, "peak_bytes": peak_bytes(), **more})


class Over(Exception):
    """No more turns."""


Contest = Callable[..., None]
"""A function (turns, **arguments) that waits for turns and ends them until `Over` is raised."""


def peak_bytes() -> int:
    """The most memory that this process has held: on the accelerator where there is one, else of all."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return highest_bytes()


def resting_bytes() -> int:
    """The memory that this process holds now."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def repeat(turns: Turns, run: Callable[[], Any]) -> None:
    """Run the same at every turn."""
    while True:
        turns.wait()
        run()
        turns.done()


@dataclass
class Variant:
    """Who takes part: `contest` must be a module's function, `arguments` what it is called with."""

    suite: str
    case: str
    name: str
    contest: Contest
    arguments: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    resting_bytes: int = 0
    """Before the first turn: what the model, the data and the interpreter take."""
    rounds: int = 0
    """How often its process was started."""
    more: dict[str, list[float]] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Its measurements, for the JSON file."""
        own = {"suite": self.suite, "case": self.case, "variant": self.name, "seconds": self.seconds}
        return (
            own
            | {"peak_bytes": self.peak_bytes, "resting_bytes": self.resting_bytes, "rounds": self.rounds}
            | self.more
        )


def _main(pipe: Connection, contest: Contest, arguments: dict[str, Any], threads: int) -> None:
    torch.set_num_threads(threads)
    with open(os.devnull, "w") as quiet:  # progress bars and notices; errors go through the pipe
        os.dup2(quiet.fileno(), 1)
        os.dup2(quiet.fileno(), 2)
    try:
        contest(Turns(pipe), **arguments)
    except Over:
        pass
    except Exception:
        pipe.send({"error": traceback.format_exc()})


def compete(
    variants: list[Variant], repeats: int, warmups: int = 1, threads: int | None = None, rounds: int = 1
) -> None:
    """Let them take turns, `warmups` + `repeats` each, in each of `rounds`; the measurements are added to them.

    A round starts every process anew, in another order: what favours a process for as long as it lives, such as where
    its memory lies, does not show in its turns alone.
    Raises RuntimeError with a variant's own traceback where one fails.
    """
    for first in range(rounds):
        at = first % len(variants)
        for variant in variants:
            variant.rounds += 1
        _round(variants[at:] + variants[:at], repeats, warmups, threads)


def _round(variants: list[Variant], repeats: int, warmups: int, threads: int | None) -> None:
    context = mp.get_context("spawn")
    pipes, processes = [], []
    for variant in variants:
        here, there = context.Pipe()
        arguments = (there, variant.contest, variant.arguments, threads or torch.get_num_threads())
        process = context.Process(target=_main, args=arguments)
        process.start()
        pipes.append(here)
        processes.append(process)
        # One after the other: loading is not to disturb a measurement.
        variant.resting_bytes = max(variant.resting_bytes, _received(here, variant)["resting_bytes"])
    try:
        for turn in range(warmups + repeats):
            for variant, pipe in zip(variants, pipes):
                pipe.send("go")
                found = _received(pipe, variant)
                if turn >= warmups:
                    variant.seconds.append(found.pop("seconds"))
                    variant.peak_bytes = max(variant.peak_bytes, int(found.pop("peak_bytes")))
                    for name, value in found.items():
                        variant.more.setdefault(name, []).append(value)
                _received(pipe, variant)  # ready again
    finally:
        for pipe, process in zip(pipes, processes):
            with contextlib.suppress(OSError):  # it may have ended
                pipe.send("stop")
            process.join(20)
            process.kill()


def _received(pipe: Connection, variant: Variant) -> dict[str, Any]:
    try:
        found = pipe.recv()
    except EOFError:
        found = {"error": "its process ended, perhaps for want of memory"}
    if "error" in found:
        raise RuntimeError(f"{variant.suite}, {variant.case}, {variant.name}: {found['error']}")
    return found
