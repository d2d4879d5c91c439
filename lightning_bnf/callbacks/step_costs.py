"""Seconds, tokens and memory of each optimizer step."""

import contextlib
import time
from pathlib import Path
from typing import Any

import torch

from lightning_bnf.pages import scores
from lightning_bnf.runtime.distributed import gather_objects
from lightning_bnf.runtime.memory import Unmeasurable, highest_bytes


class StepCosts:
    """Columns with a number for each step: step (from 1), seconds, tokens (completion tokens trained, of this rank),
    gigabytes (the most that the process has held until then; left out where nobody tells)."""

    def __init__(self) -> None:
        self._before: dict[str, list[float]] = {}
        self._now: dict[str, list[float]] = {"step": [], "seconds": [], "tokens": [], "gigabytes": []}
        self._started = 0.0

    def begin(self, run: Path, step: int) -> None:
        """A resumed run keeps what was measured up to the step that it goes on from."""
        held = scores.read_steps(run) if step else {}
        kept = sum(number <= step for number in held.get("step", []))
        self._before = {name: values[:kept] for name, values in held.items()}

    def start(self) -> None:
        """A step begins."""
        self._started = time.perf_counter()

    def end(self, step: int, batch: Any, device: torch.device) -> None:
        """Step number `step` has ended."""
        self._now["step"].append(step)
        self._now["seconds"].append(round(time.perf_counter() - self._started, 4))
        self._now["tokens"].append(sum(len(part.target) for part in getattr(batch, "micro_batches", ())))
        with contextlib.suppress(Unmeasurable):
            held = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else highest_bytes()
            self._now["gigabytes"].append(round(held / 1e9, 3))

    def gathered(self) -> dict[str, list[float]]:
        """The columns: tokens of all ranks together, memory of the rank that takes most. Every rank calls it."""
        ranks = gather_objects(self._now)
        first = ranks[0]
        now = {
            "step": first["step"],
            "seconds": first["seconds"],
            "tokens": [sum(values) for values in zip(*(rank["tokens"] for rank in ranks))],
            "gigabytes": [max(values) for values in zip(*(rank["gigabytes"] for rank in ranks))],
        }
        return {name: [*self._before.get(name, []), *values] for name, values in now.items()}
