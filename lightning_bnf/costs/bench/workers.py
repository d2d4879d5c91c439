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

LONGEST_SECONDS = 1800
"""Of a turn, or of what comes before the first: a process that takes longer hangs."""


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

    def done(self, **more: Any) -> None:
        """End the turn; `more` are further numbers of it, or words."""
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
    more: dict[str, list[Any]] = field(default_factory=dict)
    alone: bool = False
    """Whether its process has ended before the next one begins, as models on a GPU do not fit beside each other."""
    once: bool = False
    """Whether its one turn is a whole run, which is not repeated."""
    error: str = ""
    """Why it was not measured to its end."""

    def row(self) -> dict[str, Any]:
        """Its measurements, for the JSON file."""
        own = {"suite": self.suite, "case": self.case, "variant": self.name, "seconds": self.seconds}
        return (
            own
            | {"peak_bytes": self.peak_bytes, "resting_bytes": self.resting_bytes, "rounds": self.rounds}
            | ({"error": self.error} if self.error else {})
            | self.more
        )

    def take(self, row: dict[str, Any]) -> None:
        """Have the measurements that `row` gave."""
        known = {name: row[name] for name in ("seconds", "peak_bytes", "resting_bytes", "rounds")}
        for name, value in known.items():
            setattr(self, name, value)
        self.more = {name: row[name] for name in row if name not in (*known, "suite", "case", "variant")}


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
    its memory lies, does not show in its turns alone. One that fails has its traceback as its `error`, and the others
    go on.
    """
    for first in range(rounds):
        at = first % len(variants)
        started = [variant for variant in variants[at:] + variants[:at] if not variant.error]
        for variant in started:
            variant.rounds += 1
        alone, once = any(variant.alone for variant in started), any(variant.once for variant in started)
        for some in [[variant] for variant in started] if alone else [started]:
            _round(some, 1 if once else repeats, 0 if once else warmups, threads)


def _round(variants: list[Variant], repeats: int, warmups: int, threads: int | None) -> None:
    context = mp.get_context("spawn")
    processes = []
    try:
        for variant in variants:
            here, there = context.Pipe()
            arguments = (there, variant.contest, variant.arguments, threads or torch.get_num_threads())
            process = context.Process(target=_main, args=arguments)
            process.start()
            there.close()  # else its end would not be heard of here
            processes.append((variant, here, process))
            # One after the other: loading is not to disturb a measurement.
            if ready := _received(here, variant):
                variant.resting_bytes = max(variant.resting_bytes, ready["resting_bytes"])
        for turn in range(warmups + repeats):
            for variant, pipe, _ in processes:
                if not variant.error:
                    _turn(pipe, variant, counts=turn >= warmups)
    finally:
        for _, pipe, process in processes:
            with contextlib.suppress(OSError):  # it may have ended
                pipe.send("stop")
            process.join(20)
            process.kill()
            process.join()


def _turn(pipe: Connection, variant: Variant, counts: bool) -> None:
    with contextlib.suppress(OSError):  # that its process has ended is heard of below
        pipe.send("go")
    found = _received(pipe, variant)
    if not found:
        return
    if counts:
        variant.seconds.append(found.pop("seconds"))
        # Kernels count the pages of one and of the other apart, to some pages.
        variant.peak_bytes = max(variant.peak_bytes, variant.resting_bytes, int(found.pop("peak_bytes")))
        for name, value in found.items():
            variant.more.setdefault(name, []).append(value)
    _received(pipe, variant)  # ready again


def _received(pipe: Connection, variant: Variant) -> dict[str, Any]:
    """What its process tells; nothing, and the variant has its `error`, where that failed, died or hangs."""
    try:
        found: dict[str, Any] = (
            pipe.recv() if pipe.poll(LONGEST_SECONDS) else {"error": f"nothing in {LONGEST_SECONDS} seconds"}
        )
    except (EOFError, OSError):
        found = {"error": "its process ended, perhaps for want of memory"}
    variant.error = found.get("error", "")
    return {} if variant.error else found
