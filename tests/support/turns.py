"""Turns of the bench in this process."""

import time

from lightning_bnf.costs.bench.workers import Over, Turns


class Few(Turns):
    """So many turns in this process, and what was told at their ends."""

    def __init__(self, turns: int):
        self.left = turns
        self.told: list[dict[str, float]] = []

    def wait(self) -> None:
        if not self.left:
            raise Over
        self.left -= 1
        self.started = time.perf_counter()

    def done(self, **more: float) -> None:
        self.told.append({"seconds": time.perf_counter() - self.started, **more})
