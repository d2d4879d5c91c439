"""A matrix of runs, methods by seeds, that can be stopped and started again."""

import argparse
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lightning_bnf.reproduction.commands import end_commands, leaves, run_command, typed
from lightning_bnf.reproduction.stages import Expected, Stage, first_seed, forecast, in_order, power_lines
from lightning_bnf.runtime.arguments import PositiveFloat, PositiveInt, checked
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.fingerprints import file_fingerprint
from lightning_bnf.runtime.processes import ENDS_WITH_PARENT, cores
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.runtime.shipped import here_or_shipped, shipped
from lightning_bnf.runtime.slowness import slow_products
from lightning_bnf.training.defaults import device_type

RESULTS = (
    *("displacement.json", "before_after.json", "scores.json", "test_pass_rates.json", "test_metrics.json"),
    "likelihood.json",
)
"""Files of a run folder that are carried into its result."""
PACKAGES = ("lightning_bnf", "torch", "transformers", "lightning", "peft")


@dataclass(frozen=True)
class Method:
    """What differs from the shared config, as dotted settings.

    Args:
        settings: Of all the method's runs, such as {model.loss: configs/loss/dpo.yaml}.
        grid: Settings to try with the first seed, of which the one with the highest greedy pass rate on validation
            prompts is kept (the first of equals); one entry leaves nothing to pick.
        once: Whether it gets the first seed only, as a base that is not trained: no seed would change it.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    grid: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    once: bool = False


class Run(NamedTuple):
    """A method with its settings (dotted names as on the command line), and a seed of order and adapters."""

    method: str
    tried: int | None
    settings: Mapping[str, Any]
    seed: int

    @property
    def name(self) -> str:
        """Of its folder and its result; `tried` is the place in the method's grid, from 1, where it has several."""
        return f"{self.method}{'' if self.tried is None else f'_setting{self.tried}'}_seed{self.seed}"


@checked
def run_matrix(
    base: Path,
    methods: dict[str, Method],
    output: Path,
    seeds: list[int] | None = None,
    work: Path = Path("runs/reproduce"),
    minutes_per_run: PositiveFloat = 5.0,
    workers: PositiveInt = 1,
    stages: dict[str, Stage] | None = None,
    expected: dict[str, Expected] | None = None,
    dry_run: bool = False,
) -> None:
    """Run a matrix of methods and seeds, one JSON file a run; the arguments are those of the verb."""
    if (seeds is None) == (stages is None):
        raise Refusal("seeds must be given, or stages, got both or neither")
    for name, method in methods.items():
        if method.once and len(method.grid) > 1:
            raise Refusal(f"methods {name!r}: grid must be of one setting with once, got {len(method.grid)}")
    base = here_or_shipped(str(base), "configs")
    _say_of_slow_products(base)
    if stages is not None:
        _staged(base, methods, output, work, minutes_per_run, workers, stages, expected or {}, dry_run)
        return
    assert seeds is not None
    if not methods or not seeds:
        raise Refusal("methods and seeds must be one or more of each, got none of one of them")
    if len(set(seeds)) != len(seeds):
        raise Refusal(f"seeds must be different, got {seeds}")
    _picked(base, methods, output, work, minutes_per_run, workers, seeds, dry_run)


def _say_of_slow_products(base: Path) -> None:
    """Before hours are told: those of a machine that computes as the config says."""
    config = yaml.safe_load(base.read_text(encoding="utf-8")) if base.is_file() else None
    trainer = config.get("trainer") if isinstance(config, dict) else None
    if not isinstance(trainer, dict):
        return
    told = slow_products(
        device_type(trainer.get("accelerator", "auto")), None, str(trainer.get("precision", "32-true"))
    )
    if told:
        print(f"{told}. Hours that are told here are those of a CPU with instructions for it")


def _picked(
    base: Path,
    methods: Mapping[str, Method],
    output: Path,
    work: Path,
    minutes: float,
    workers: int,
    seeds: Sequence[int],
    dry_run: bool,
) -> None:
    """The first seed of everything, then the others of what was picked."""
    first, *others = seeds
    tried = {name: _tried(name, method, first) for name, method in methods.items()}
    repeated = [name for name, method in methods.items() if not method.once]
    total = sum(map(len, tried.values())) + len(repeated) * len(others)
    begun = [run for runs in tried.values() for run in runs]
    done = sum(_is_done(run, output) for run in begun)
    for seed, name in product(others, repeated):  # with whichever setting
        done += any(_is_done(run._replace(seed=seed), output) for run in tried[name])
    print(f"{total} runs of some {minutes:g} minutes, {done} done")
    if dry_run:
        return
    queue = _Queue(base, output, work, minutes, total - done, workers)
    queue.do(begun)
    picked = {name: _pick(tried[name], output) for name in repeated}
    queue.do([picked[name]._replace(seed=seed) for seed, name in product(others, repeated)])


def _staged(
    base: Path,
    methods: Mapping[str, Method],
    output: Path,
    work: Path,
    minutes: float,
    workers: int,
    stages: Mapping[str, Stage],
    expected: Mapping[str, Expected],
    dry_run: bool,
) -> None:
    """Stage after stage."""

    def runs_of(name: str, seed: int) -> list[Run]:
        return _tried(name, methods[name], first_seed(stages) if methods[name].once else seed)

    parts = in_order(stages, list(methods), runs_of)
    minutes = statistics.median(_minutes(output) or [minutes])
    done = {name: sum(_is_done(run, output) for run in runs) for name, runs in parts.items()}
    print("\n".join(forecast({name: len(runs) for name, runs in parts.items()}, done, minutes, workers)))
    print("\n".join(power_lines(expected, stages)), flush=True)
    if dry_run:
        return
    left = sum(map(len, parts.values())) - sum(done.values())
    queue = _Queue(base, output, work, minutes, left, workers)
    for name, runs in parts.items():
        queue.do(runs)
        print(f"stage {name} is whole", flush=True)


def _minutes(output: Path) -> list[float]:
    """What finished runs of a folder took."""
    return [float(json.loads(path.read_text())["minutes"]) for path in output.glob("*_seed*.json")]


def expanded(words: Sequence[str], folder: Path | None = None) -> list[str]:
    """The command line with `TABLE --scale SCALE` as the config that it is short for: in `folder`, or a shipped one.

    Raises `Refusal` where there is none of that name.
    """
    if not words or words[0].startswith("-"):
        return list(words)
    parser = argparse.ArgumentParser(prog="python -m lightning_bnf reproduce", allow_abbrev=False)
    parser.add_argument("table")
    parser.add_argument("--scale", default="small")
    given, rest = parser.parse_known_args(list(words))
    configs = shipped("configs/reproduce") if folder is None else folder
    held = {path.stem: path for path in sorted(configs.glob("*.yaml"))}
    name = next((name for name in (f"{given.table}_{given.scale}", given.table) if name in held), None)
    if name is None:
        raise Refusal(f"reproduce must be one of {', '.join(held) or 'none'}, got {given.table} --scale {given.scale}")
    return ["--config", str(held[name]), *rest]


def _tried(name: str, method: Method, seed: int) -> list[Run]:
    """A run for each point of the method's grid."""
    if not method.grid:
        raise Refusal(f"methods {name!r}: grid must be one or more settings, got none")
    several = len(method.grid) > 1
    return [Run(name, i + 1 if several else None, method.settings | point, seed) for i, point in enumerate(method.grid)]


def _pick(runs: Sequence[Run], output: Path) -> Run:
    """The run with the highest greedy pass rate on validation prompts, the first of equals."""
    if len(runs) == 1:
        return runs[0]
    rates = [validation_rate(json.loads((output / f"{run.name}.json").read_text())) for run in runs]
    best = max(range(len(runs)), key=rates.__getitem__)
    print(f"{runs[best].method}: setting {best + 1} of {len(runs)} passes most validation prompts ({rates[best]:.3f})")
    return runs[best]


def _check_done(base: Path, run: Run, path: Path) -> None:
    """Raises `Refusal` where a finished run's settings, or the contents of its data files, are not what they would be
    now. Settings in files that the config names, such as a loss's, are not looked into."""
    record = json.loads(path.read_text())
    shared = yaml.safe_load(base.read_text()) if base.exists() else {}
    own = dict(run.settings) | _seeds(run)
    wanted = {
        name: value
        for name, value in leaves(shared)
        if not any(f"{name}.".startswith(f"{other}.") for other in (*own, "trainer.default_root_dir"))
    }
    found = {name: _at(record["config"], name) for name in wanted | own}
    differing = [
        f"{name} {found[name]!r}, not {value!r}"
        for name, value in (wanted | own).items()
        if _plain(found[name]) and _plain(value) and found[name] != value
    ]
    differing += [
        f"other contents of {name}"
        for name, made_with in record.get("fingerprints", {}).items()
        if Path(name).is_file() and file_fingerprint(name) != made_with
    ]
    if differing:
        raise Refusal(
            f"output must be another folder, or the file taken away: got {path}, made with {'; '.join(differing)}"
        )


def _is_done(run: Run, output: Path) -> bool:
    return (output / f"{run.name}.json").exists()


def _seeds(run: Run) -> dict[str, Any]:
    return {"seed_everything": run.seed, "data.seed": run.seed}


def _plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _at(config: Any, name: str) -> Any:
    """The setting of a dotted name, None where there is none."""
    for part in name.split("."):
        if isinstance(config, list):
            config = dict(enumerate(config)).get(int(part)) if part.isdecimal() else None
        else:
            config = config.get(part) if isinstance(config, dict) else None
    return config


def validation_rate(record: Mapping[str, Any]) -> float:
    """The share of validation prompts of trained families whose greedy completion passed: nothing that is kept out of
    training may pick a setting. Raises `Refusal` where none were scored."""
    scores = record["results"].get("scores", {}).get("validation", [])
    passed = [one["passed"] for one in scores if one["decoding"] == "greedy" and one["groups"][0] == "trained"]
    if not passed:
        raise Refusal(
            f"{record['method']}: base must be a config with the callback ScorePrompts, whose scores of validation "
            "prompts pick from a grid, got one without"
        )
    return sum(passed) / len(passed)


class _Queue:
    """Runs what is not done yet, `workers` at a time, and says how long the rest will take."""

    def __init__(self, base: Path, output: Path, work: Path, minutes: float, left: int, workers: int):
        self.base, self.output, self.work, self.left, self.workers = base, output, work, left, workers
        self.taken: list[float] = []
        self.failed, self.counting = threading.Event(), threading.Lock()
        output.mkdir(parents=True, exist_ok=True)
        print(self._to_go(minutes), flush=True)

    def _to_go(self, minutes: float) -> str:
        return f"about {minutes * self.left / self.workers:.0f} minutes to go"

    def do(self, runs: Sequence[Run]) -> None:
        """Train and keep the results of those that are not there. After a failure no other run is begun.

        Raises `Refusal`, before any is, where one that is there was made with other settings or data.
        """
        for run in runs:
            if _is_done(run, self.output):
                _check_done(self.base, run, self.output / f"{run.name}.json")
        with ThreadPoolExecutor(self.workers) as pool:
            for one in [pool.submit(self._do, run) for run in runs]:
                try:
                    one.result()
                except BaseException as error:
                    self.failed.set()
                    if not isinstance(error, Exception):  # Ctrl-C or SIGTERM: they save, and end
                        end_commands()
                    raise

    def _do(self, run: Run) -> None:
        if _is_done(run, self.output) or self.failed.is_set():
            return
        path = self.output / f"{run.name}.json"
        folder = self.work / self.output.name / run.name
        threads = max(1, cores() // self.workers) if self.workers > 1 else None
        started = time.perf_counter()
        try:
            train(self.base, run, folder, threads)
            minutes = (time.perf_counter() - started) / 60
            record = result(run, folder, minutes) | {"workers": self.workers}
        except BaseException:
            self.failed.set()
            raise
        write_text(path, json.dumps(record, indent=1) + "\n")
        with self.counting:
            self.taken.append(minutes)
            self.left -= 1
            to_go = self._to_go(statistics.median(self.taken))
            print(f"{run.name}: {minutes:.1f} minutes; {self.left} runs, {to_go}", flush=True)


def train(base: Path, run: Run, folder: Path, threads: int | None) -> None:
    """One run, in a process of its own, with so many threads of torch (None: its own choice). Raises `Refusal`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    log_file = folder.with_name(f"{folder.name}.log")  # beside the folder, which `fit` moves aside where it has a run
    environment = os.environ | {ENDS_WITH_PARENT: "1"}
    environment |= {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    settings = _seeds(run) | {"trainer.default_root_dir": str(folder)}
    run_command(fit_words(base, dict(run.settings) | settings), log_file, environment, run.name)


def fit_words(base: Path, settings: Mapping[str, Any]) -> list[str]:
    """A fit with dotted settings over a config, as it is typed."""
    return ["fit", "--config", str(base), *(word for name, value in settings.items() for word in typed(name, value))]


def result(run: Run, folder: Path, minutes: float) -> dict[str, Any]:
    """What is kept of a finished run: its settings, versions, fingerprints and numbers."""
    return {
        "method": run.method,
        "setting": run.tried,
        "seed": run.seed,
        "minutes": round(minutes, 2),
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in PACKAGES},
        "fingerprints": json.loads((folder / "fingerprints.json").read_text()),
        "config": yaml.safe_load((folder / "config.yaml").read_text()),
        "data_report": (folder / "data_report.txt").read_text().splitlines()[0],
        "results": {
            Path(name).stem: json.loads((folder / name).read_text()) for name in RESULTS if (folder / name).exists()
        },
    }


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All results of a folder, by method and seed. Raises Refusal where it has none."""
    found = [json.loads(path.read_text()) for path in Path(folder).glob("*_seed*.json")]
    if not found:
        raise Refusal(f"folder must be one that `reproduce` has written to, got {folder} without results")
    return sorted(found, key=lambda record: (record["method"], record["seed"]))
