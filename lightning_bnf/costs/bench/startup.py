"""How long one waits for the command line: our help and refusals beside those of a plain LightningCLI."""

import resource
import subprocess
import sys
import time

from lightning_bnf.costs.bench.workers import Turns, Variant

STOCK = (
    "-c",
    "from lightning.pytorch.cli import LightningCLI\n"
    "from lightning.pytorch.demos.boring_classes import BoringDataModule, DemoModel\n"
    "LightningCLI(DemoModel, BoringDataModule)",
)
OURS = ("-m", "lightning_bnf")


def typed(turns: Turns, words: list[str], status: int) -> None:
    """A turn is one start of Python with `words`, until it ends with `status`. Beside its wall time: `cpu_seconds`,
    which other programs on the machine do not lengthen, and `first_line_seconds`, until something is shown.

    Raises RuntimeError with what it said where it ends otherwise.
    """
    while True:
        turns.wait()
        before, begun = _cpu_seconds(), time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        line = process.stdout.readline()
        first = time.perf_counter() - begun
        rest, _ = process.communicate()
        if process.returncode != status:
            raise RuntimeError(f"{words} ended with {process.returncode}: {(line + rest).decode()}")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        turns.done(peak_bytes=peak, cpu_seconds=_cpu_seconds() - before, first_line_seconds=first)


def _cpu_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def variants() -> list[list[Variant]]:
    """The help of `fit` beside stock's, with a mistyped field; and what is known before anything is imported, beside
    an empty program."""
    groups = {
        "fit": {
            "LightningCLI with a demo model: fit --help": ((*STOCK, "fit", "--help"), 0),
            "fit --help": ((*OURS, "fit", "--help"), 0),
            "fit, a mistyped field": ((*OURS, "fit", "--config", "configs/quickstart.yaml", "--data.trian", "x"), 2),
        },
        "overview": {
            "python alone": (("-c", "print()"), 0),
            "--help": ((*OURS, "--help"), 0),
            "a mistyped command": ((*OURS, "fti"), 2),
        },
    }
    return [
        [
            Variant("cli", case, name, typed, {"words": list(words), "status": status})
            for name, (words, status) in group.items()
        ]
        for case, group in groups.items()
    ]
