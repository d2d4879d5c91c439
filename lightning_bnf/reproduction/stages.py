"""Matrices in stages, each of which is a whole result: their order, what they take, and what they can see."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from lightning_bnf.evaluation.statistics.paired import Components
from lightning_bnf.evaluation.statistics.power import smallest_difference
from lightning_bnf.runtime.arguments import AtLeastTwo, NonNegativeFloat, OpenUnitInterval, checked
from lightning_bnf.runtime.refusal import Refusal

Item = TypeVar("Item")


@dataclass(frozen=True)
class Stage:
    """Runs that are a whole result together: every point of the methods' grids with every seed. Nothing is picked.

    Args:
        methods: Their names; a method that is run `once` gets the first seed only.
        seeds: Seeds of order and adapters.
    """

    methods: list[str]
    seeds: list[int]


@checked
@dataclass(frozen=True)
class Expected:
    """A measure of which it is said, before anything runs, what its seeds and rows can see.

    Args:
        rows: Rows that it is measured on.
        prompt: Variance of a paired difference between rows, as measured before (evaluation.statistics.paired).
        seed: Between seeds.
        rest: Of the rest.
        besides: Standard error of what the difference depends on beside rows and seeds, such as the level of alignment
            at which methods are compared. It is taken to be the same with more seeds, which may make it smaller.
        level: Of the test: 0.05, or less where several are corrected for.
    """

    rows: AtLeastTwo
    prompt: NonNegativeFloat
    seed: NonNegativeFloat
    rest: NonNegativeFloat
    besides: NonNegativeFloat = 0.0
    level: OpenUnitInterval = 0.05

    def seen(self, seeds: int) -> float:
        """The smallest difference that so many seeds tell from 0 in four of five such experiments."""
        variances = Components(self.prompt, self.seed, self.rest)
        return smallest_difference(self.rows, seeds, variances, level=self.level, besides=self.besides, by_seeds=True)


def in_order(
    stages: Mapping[str, Stage], methods: Sequence[str], runs_of: Callable[[str, int], list[Item]]
) -> dict[str, list[Item]]:
    """Stage -> its runs that no stage before has: seed by seed, so that after each seed all methods can be compared.

    runs_of: (method, seed) -> runs, one for each point of its grid

    Raises `Refusal` for a method that there is not, and a stage without methods or seeds.
    """
    found: dict[str, list[Item]] = {}
    seen: list[Item] = []
    for name, stage in stages.items():
        if not stage.methods or not stage.seeds or len(set(stage.seeds)) < len(stage.seeds):
            raise Refusal(f"stages {name!r}: methods and different seeds must be one or more of each, got {stage}")
        if unknown := [method for method in stage.methods if method not in methods]:
            raise Refusal(f"stages {name!r}: methods must be of {', '.join(methods)}, got {unknown[0]!r}")
        found[name] = []
        for seed in stage.seeds:
            for run in (run for method in stage.methods for run in runs_of(method, seed)):
                if run not in seen:
                    seen.append(run)
                    found[name].append(run)
    return found


def first_seed(stages: Mapping[str, Stage]) -> int:
    """The one that methods get which are run once."""
    return next(seed for stage in stages.values() for seed in stage.seeds)


def forecast(runs: Mapping[str, int], done: Mapping[str, int], minutes: float, workers: int) -> list[str]:
    """Lines that say what each stage and the whole take: stage -> runs, and those of them that are done."""
    hours = minutes / 60 / workers
    lines = [
        f"stage {name}: {count} runs, {done[name]} done, {hours * (count - done[name]):.1f} hours to go"
        for name, count in runs.items()
    ]
    left = sum(runs.values()) - sum(done.values())
    return [
        f"a run takes {minutes:.1f} minutes; {sum(runs.values())} runs in all, {hours * left:.1f} hours to go",
        *lines,
    ]


def power_lines(expected: Mapping[str, Expected], stages: Mapping[str, Stage]) -> list[str]:
    """Lines that say which difference of two methods each number of seeds tells from 0 in four of five such
    experiments."""
    counts = sorted({seeds for stage in stages.values() if (seeds := len(stage.seeds)) > 1})
    lines = []
    for name, one in expected.items():
        seen = ", ".join(f"{one.seen(seeds):.3f} with {seeds} seeds" for seeds in counts)
        lines.append(f"{name} ({one.rows} rows): differences from {seen or 'none: a single seed'} are seen")
    return lines


def unfinished(
    stages: Mapping[str, Mapping[str, Any]], methods: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """A line for each stage of a config of `reproduce`: its runs, how many of them there are, the state that makes, and
    how many are left that no stage before it has."""
    done = {(record["method"], record["setting"], record["seed"]) for record in records}
    lines, before = {}, set(done)
    for name, stage in stages.items():
        wanted = set()
        for method in stage["methods"]:
            own = methods[method]
            several = len(own.get("grid", [{}])) > 1
            settings = [i + 1 for i in range(len(own["grid"]))] if several else [None]
            seeds = stage["seeds"][:1] if own.get("once") else stage["seeds"]
            wanted |= {(method, setting, seed) for setting in settings for seed in seeds}
        there = len(wanted & done)
        state = "whole" if there == len(wanted) else "unfinished" if there else "not begun"
        lines[name] = {"runs": len(wanted), "done": there, "state": state, "left": len(wanted - before)}
        before |= wanted
    return pd.DataFrame(lines).T.rename_axis(index="stage")
