"""Turns of the bench in this process, and what takes them in others: few imports, as each of these imports anew."""

import contextlib
import time
import traceback
from typing import Any

from lightning_bnf.costs.bench.workers import Over, Turns, Variant, repeat


class Few(Turns):
    """So many turns in this process, and what was told at their ends."""

    def __init__(self, turns: int):
        self.left = turns
        self.told: list[dict[str, Any]] = []

    def wait(self) -> None:
        if not self.left:
            raise Over
        self.left -= 1
        self.started = time.perf_counter()

    def done(self, **more: Any) -> None:
        self.told.append({"seconds": time.perf_counter() - self.started, **more})


def here(group: list[Variant], repeats: int, *_: Any) -> None:
    """`workers.compete` in this process, without warm-ups."""
    for variant in group:
        turns = Few(1 if variant.once else repeats)
        try:
            with contextlib.suppress(Over):
                variant.contest(turns, **variant.arguments)
        except Exception:
            variant.error = traceback.format_exc()
        for told in turns.told:
            variant.seconds.append(told.pop("seconds"))
            for name, value in told.items():
                variant.more.setdefault(name, []).append(value)


def sleeper(turns: Turns, seconds: float, log: str) -> None:
    def run() -> None:
        with open(log, "a") as file:
            file.write(f"{seconds}\n")
        time.sleep(seconds)

    repeat(turns, run)


def fails(turns: Turns) -> None:
    turns.wait()
    raise ValueError("no luck")
