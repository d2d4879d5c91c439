"""Runs of the frontier as curves: what was measured on the base, and then at moments of each run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lightning_bnf.reproduction.runs import read_results
from lightning_bnf.reproduction.scores import BASE
from lightning_bnf.runtime.refusal import Refusal

ALIGNMENT = "passes"
"""Of test prompts of trained families, whether the greedy answer passes: the measure that curves run along."""
PLACES = 9
"""Of shares of prompts, see `aligned`."""
Records = Sequence[Mapping[str, Any]]
Values = Mapping[str, np.ndarray]


class Moment(NamedTuple):
    """A run at a share of its steps: measure -> (rows,)."""

    share: float
    values: Values


class Curve(NamedTuple):
    """A run from the base on. rate: its learning rate."""

    method: str
    setting: int | None
    rate: float
    seed: int
    moments: list[Moment]


def curves(records: Records) -> list[Curve]:
    """All runs but the base's, each with the base as its first moment.

    Raises `Refusal` where there is no base, or a run was measured on other rows.
    """
    base = [record for record in records if record["method"] == BASE]
    if not base:
        raise Refusal(f"records must hold a run of {BASE}, got none")
    (*_, start), rows = _moments(base[0]), base[0]["results"]["likelihood"]["fingerprints"]
    found = []
    for record in records:
        if record["method"] == BASE:
            continue
        if record["results"]["likelihood"]["fingerprints"] != rows:
            raise Refusal(f"records must be measured on the base's rows, got others of {_name(record)}")
        rate = float(record["config"]["model"]["optimization"]["learning_rate"])
        moments = [Moment(0.0, start.values), *_moments(record)]
        found.append(Curve(record["method"], record["setting"], rate, record["seed"], moments))
    return found


def read_curves(folder: Path) -> list[Curve]:
    """Of results in a folder; none where it is not there, or holds the base alone."""
    records = read_results(folder) if folder.is_dir() else []
    return curves(records) if len(records) > 1 else []


def _moments(record: Mapping[str, Any]) -> list[Moment]:
    points = sorted(record["results"]["likelihood"]["points"], key=lambda point: point["share"])
    return [
        Moment(point["share"], {name: np.array(some) for name, some in point["values"].items()}) for point in points
    ]


def _name(record: Mapping[str, Any]) -> str:
    return f"{record['method']}, setting {record['setting']}, seed {record['seed']}"


def complete(found: Sequence[Curve], methods: Sequence[str], seeds: Sequence[int] | None = None) -> list[Curve]:
    """The curves of these methods and of seeds that a method was run with at all rates: in an unfinished stage some of
    them are not there yet, and means over rates would be of others. With `seeds` these alone, of the methods that have
    all of them."""
    mine = [curve for curve in found if curve.method in methods]
    rates = {curve.rate for curve in mine}
    run: dict[tuple[str, int], set[float]] = {}
    for curve in mine:
        run.setdefault((curve.method, curve.seed), set()).add(curve.rate)
    whole = {cell for cell, some in run.items() if some == rates}
    wanted = {seed for _, seed in whole} if seeds is None else set(seeds)
    ready = {m for m, _ in whole if seeds is None or wanted <= {seed for method, seed in whole if method == m}}
    cells = {(method, seed) for method, seed in whole if method in ready and seed in wanted}
    return [curve for curve in mine if (curve.method, curve.seed) in cells]


def points(found: Sequence[Curve]) -> pd.DataFrame:
    """Tidy: columns method, rate, seed, share, measure, value: means over the rows that every moment of a run has."""
    lines = []
    for curve in found:
        for moment in curve.moments:
            means = {name: float(common_rows(curve, name, moment).mean()) for name in moment.values}
            lines += [(curve.method, curve.rate, curve.seed, moment.share, *item) for item in means.items()]
    return pd.DataFrame(lines, columns=["method", "rate", "seed", "share", "measure", "value"])


def common_rows(curve: Curve, measure: str, moment: Moment) -> np.ndarray:
    """The first rows, which all moments of the curve have: within a run fewer questions are asked than at its end."""
    rows = min(len(one.values[measure]) for one in curve.moments if measure in one.values)
    return moment.values[measure][:rows]


def only(curve: Curve, measure: str) -> Curve:
    """The curve with one measure alone."""
    return curve._replace(moments=[Moment(one.share, {measure: one.values[measure]}) for one in curve.moments])


def averaged(found: Sequence[Curve], seeds: Sequence[int]) -> list[Curve]:
    """A curve for each method and rate, of the means over these seeds row by row: a single run's alignment is too rough
    to say where it comes to a level. Its `seed` is that of the first."""
    groups: dict[tuple[str, int | None], list[Curve]] = {}
    for curve in found:
        if curve.seed in seeds:
            groups.setdefault((curve.method, curve.setting), []).append(curve)
    curves_ = []
    for some in groups.values():
        moments = [
            Moment(
                same[0].share, {name: np.mean([one.values[name] for one in same], axis=0) for name in same[0].values}
            )
            for same in zip(*(curve.moments for curve in some), strict=True)
        ]
        curves_.append(some[0]._replace(moments=moments))
    return curves_


def shared_seeds(found: Sequence[Curve]) -> list[int]:
    """The seeds that every method has with every rate that any of its seeds has."""
    seeds: dict[tuple[str, int | None], set[int]] = {}
    for curve in found:
        seeds.setdefault((curve.method, curve.setting), set()).add(curve.seed)
    return sorted(set.intersection(*seeds.values())) if seeds else []


def needed_seeds(found: Sequence[Curve]) -> list[int]:
    """`shared_seeds`; raises `Refusal` where there is none."""
    seeds = shared_seeds(found)
    if not seeds:
        names = ", ".join(dict.fromkeys(curve.method for curve in found))
        raise Refusal(f"records must have a seed that {names or 'methods'} share at every rate, got none")
    return seeds


def aligned(moment: Moment) -> float:
    """The share of prompts that pass, rounded: shares of the same prompts are often equal, and the order of a sum must
    not say which is above."""
    return round(float(moment.values[ALIGNMENT].mean()), PLACES)
