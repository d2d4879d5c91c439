"""What preparing will take: some of the prompts for real, in a folder that goes again, and the whole by their rates."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from lightning_bnf.generation.sampling import Sampling
from lightning_bnf.preparation.engines import Engine
from lightning_bnf.results.markdown import markdown_table
from lightning_bnf.runtime.jsonl import JsonlStore
from lightning_bnf.runtime.progress import lasting

FEWEST = 16
"""Prompts that are tried at least; else as many as a batch holds, or four times what is asked of servers at once."""

Prompt = TypeVar("Prompt")


class Trial:
    """Which prompts are prepared, and how long the parts of that take. few: how many of them; None is all."""

    def __init__(self, few: int | None = None, clock: Callable[[], float] = time.perf_counter):
        self.few, self.clock, self.all = few, clock, 0
        self.seconds: dict[str, float] = {}

    def of(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Those that are prepared: evenly apart, so that all splits and families are among them."""
        self.all = len(prompts)
        self.few = min(self.few or self.all, self.all)
        return [prompts[i * self.all // self.few] for i in range(self.few)]

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Inside, the part is done."""
        begun = self.clock()
        yield
        self.seconds[part] = self.clock() - begun


def fewest(engine: Engine, sampling: Sampling) -> int:
    """Prompts of a batch, or that keep the servers at work for a while."""
    batch = -(-sampling.batch_size // sampling.samples)
    return max(FEWEST, 4 * sum(server.at_once for server in engine.servers()) if engine.server else batch)


def dry_run(make: Callable[[Path, Path, Trial], None], trial: Trial) -> str:
    """A table of what the whole will take. make: prepares the trial's prompts, given the folder of the finished files
    and the work file."""
    with TemporaryDirectory() as scratch:
        output, work_file = Path(scratch) / "output", Path(scratch) / "work" / "samples.jsonl"
        make(output, work_file, trial)
        drawn = JsonlStore(work_file).values()
        work, files = (sum(path.stat().st_size for path in folder.iterdir()) for folder in (work_file.parent, output))
        pairs = sum(path.read_bytes().count(b"\n") for path in output.glob("*_pairs.jsonl"))
    lengths = [one["length"] for line in drawn for row in line["completions"] for one in _listed(row)]
    in_process = [line["seconds"] for line in drawn if "seconds" in line]  # without the model's loading
    seconds = {"sampling": sum(in_process) if in_process else trial.seconds["sampling"]}
    if "scoring" in trial.seconds:
        seconds["scoring"] = max(0.0, trial.seconds["scoring"] - trial.seconds["trying the scorer out"])
    times = (trial.all / trial.few) if trial.few else 0.0
    counts = {"completions": len(lengths), "their tokens": sum(lengths), "pairs": pairs}
    sizes = {"disk, samples and scores": work, "disk, finished files": files}
    rows = [["prompts", f"{trial.few:,}", f"{trial.all:,}"]]
    rows += [[name, f"{count:,}", f"{count * times:,.0f}"] for name, count in counts.items()]
    rows += [[name, _precisely(took), lasting(took * times)] for name, took in seconds.items()]
    rows += [[name, f"{size / 1e6:.2f} MB", f"{size * times / 1e9:.3f} GB"] for name, size in sizes.items()]
    return markdown_table(("", "tried", "all, at that rate"), *rows, padded=True)


def _listed(row: object) -> list[dict[str, int]]:
    """A prompt's completions: several, or one of a server's."""
    return row if isinstance(row, list) else [row]  # type: ignore[list-item]


def _precisely(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else lasting(seconds)
