"""The verb `reproduce`: a matrix of runs, methods by seeds, that can be stopped and started again."""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml

RESULTS = ("displacement.json", "before_after.json", "test_pass_rates.json", "test_metrics.json")
"""Files of a run folder that are carried into its result."""
PACKAGES = ("lightning_bnf", "torch", "transformers", "lightning", "peft")


class Run(NamedTuple):
    """A method with its settings (dotted names as on the command line), and a seed of order and adapters."""

    method: str
    settings: Mapping[str, Any]
    seed: int

    @property
    def name(self) -> str:
        """Of its folder and its result."""
        return f"{self.method}_seed{self.seed}"


def reproduce(
    base: Path,
    methods: dict[str, dict[str, Any]],
    output: Path,
    seeds: list[int],
    work: Path = Path("runs/reproduce"),
    minutes_per_run: float = 5.0,
) -> None:
    """Run a matrix of methods and seeds, one result file per run; finished runs are skipped.

    Args:
        base: config of `fit` that all runs share.
        methods: name -> what differs from it, as dotted settings, such as {model.loss: configs/loss/dpo.yaml}.
        output: folder for the results, one JSON file a run.
        seeds: seeds of order and adapters; every method gets its first one before any gets its second.
        work: folder for the run folders.
        minutes_per_run: what a run takes, until one has been timed.
    """
    runs = [Run(method, methods[method], seed) for seed, method in product(seeds, methods)]
    if not runs:
        raise ValueError("methods and seeds: one of them is empty; accepted are one or more of each")
    left = [run for run in runs if not (output / f"{run.name}.json").exists()]
    print(f"{len(runs)} runs, {len(runs) - len(left)} done; about {minutes_per_run * len(left):.0f} minutes to go")
    output.mkdir(parents=True, exist_ok=True)
    taken: list[float] = []
    for i, run in enumerate(left):
        folder = work / output.name / run.name
        started = time.perf_counter()
        train(base, run, folder)
        taken.append((time.perf_counter() - started) / 60)
        record = result(run, folder, taken[-1])
        path = output / f"{run.name}.json"
        path.with_suffix(".tmp").write_text(json.dumps(record, indent=1) + "\n")
        path.with_suffix(".tmp").rename(path)
        more = len(left) - i - 1
        to_go = f"{more} runs, about {statistics.median(taken) * more:.0f} minutes to go"
        print(f"{run.name}: {taken[-1]:.1f} minutes; {to_go}", flush=True)


def train(base: Path, run: Run, folder: Path) -> None:
    """One run, in a process of its own. Raises ValueError with its last words if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"seed_everything": run.seed, "data.seed": run.seed, "trainer.default_root_dir": folder}
    words = [word for name, value in (dict(run.settings) | settings).items() for word in (f"--{name}", str(value))]
    with (folder / "log.txt").open("w") as log:
        command = [sys.executable, "-m", "lightning_bnf", "fit", "--config", str(base), *words]
        status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        last = (folder / "log.txt").read_text().splitlines()[-5:]
        raise ValueError(f"{run.name}: the run ended with status {status}; see {folder}/log.txt:\n" + "\n".join(last))


def result(run: Run, folder: Path, minutes: float) -> dict[str, Any]:
    """What is kept of a finished run: its settings, versions and numbers."""
    return {
        "method": run.method,
        "seed": run.seed,
        "minutes": round(minutes, 2),
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in PACKAGES},
        "config": yaml.safe_load((folder / "config.yaml").read_text()),
        "data_report": (folder / "data_report.txt").read_text().splitlines()[0],
        "results": {
            Path(name).stem: json.loads((folder / name).read_text()) for name in RESULTS if (folder / name).exists()
        },
    }


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All results of a folder, by method and seed."""
    found = [json.loads(path.read_text()) for path in Path(folder).glob("*_seed*.json")]
    return sorted(found, key=lambda record: (record["method"], record["seed"]))
