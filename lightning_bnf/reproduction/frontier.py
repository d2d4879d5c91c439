"""The frontier: what methods pay in other skills at equal alignment, over learning rates and moments of each run.

Takes results of `reproduce frontier`, whose runs were measured at shares of their steps and at the end. Alignment is
the share of test prompts whose greedy answer passes its verifier; what is taxed is measured by likelihood. A run's
curve goes from the base through these moments. The tax at matched alignment is read off where a curve first comes to a
level of alignment, row by row between the two moments around it, and is the mean over the rates whose curves come
there: no rate and no moment is picked. The rules below, and `CONTRASTS`, were stated before any of these runs was made.

    level           the lowest over methods and seeds of the highest alignment that any of their runs came to
    left out        methods whose gain in alignment is under half of the median method's: they would set the level alone
    test            paired by row and seed, t with the degrees of freedom that there are, Holm's correction over the
                    methods, for each measure by itself; to its error is added how much the difference moves when the
                    prompts that alignment is measured on are drawn anew

A first look at 22 runs of one seed had other measures, and showed that they could not answer. Whether held-out pairs
are ranked right moved by one to five pairs of 62 (of kept-out families by none) where greedy passes rose by 37 to 47
prompts of 264. And CommonsenseQA by letters, which the base answers no better than chance, "lost" 0.1 nats of the right
letter's log-prob as policies grew surer of all letters alike; asked for the option's text, its rank stays what it was.
Hence greedy passes, options by their text, and the right one's rank.
"""

from collections.abc import Mapping, Sequence
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lightning_bnf.evaluation.statistics.intervals import Interval, t_interval
from lightning_bnf.evaluation.statistics.paired import Components, paired_difference
from lightning_bnf.reproduction.claims import Claim
from lightning_bnf.reproduction.contrasts import contrasts, variances
from lightning_bnf.reproduction.runs import read_results
from lightning_bnf.reproduction.scores import BASE
from lightning_bnf.runtime.refusal import Refusal

ALIGNMENT = "passes"
LABELS = {
    "choices_ranked": "wrong options ranked below the right one",
    "choices": "questions answered right",
    "prose": "log-prob of real text",
}
TAXES = tuple(LABELS)
"""Above is better. The first is what the contrasts are decided by."""
CONTRASTS = (("BNF", "DPO", 16), ("BNF", "SimPO", 10), ("BNF", "SFT", 10))
"""What the confirming seeds (11 and on, `reproduce frontier --scale confirm`) are for: method, against, seeds."""
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


def points(found: Sequence[Curve]) -> pd.DataFrame:
    """Tidy: columns method, rate, seed, share, measure, value: means over the rows that every moment of a run has."""
    lines = []
    for curve in found:
        for moment in curve.moments:
            lines += [
                (curve.method, curve.rate, curve.seed, moment.share, name, float(_common(curve, name, moment).mean()))
                for name in moment.values
            ]
    return pd.DataFrame(lines, columns=["method", "rate", "seed", "share", "measure", "value"])


def _common(curve: Curve, measure: str, moment: Moment) -> np.ndarray:
    """The first rows, which all moments of the curve have: within a run fewer questions are asked than at its end."""
    rows = min(len(one.values[measure]) for one in curve.moments if measure in one.values)
    return moment.values[measure][:rows]


def matched_level(found: Sequence[Curve], alignment: str = ALIGNMENT) -> tuple[float, list[str]]:
    """The level of alignment at which methods are compared, and the methods that are left out."""
    best: dict[tuple[str, int], float] = {}
    start = float(found[0].moments[0].values[alignment].mean())
    for curve in found:
        key = curve.method, curve.seed
        best[key] = max(best.get(key, start), *(float(one.values[alignment].mean()) for one in curve.moments))
    gains: dict[str, list[float]] = {}
    for (method, _), value in best.items():
        gains.setdefault(method, []).append(value - start)
    half = float(np.median([np.mean(some) for some in gains.values()])) / 2
    kept = [method for method, some in gains.items() if np.mean(some) >= half and min(some) > 0]
    if not kept:
        raise Refusal("records must hold a method that gains in alignment with every seed, got none")
    return min(value for (method, _), value in best.items() if method in kept), [m for m in gains if m not in kept]


def crossing(curve: Curve, measure: str, level: float, alignment: str = ALIGNMENT) -> np.ndarray | None:
    """The measure's rows where the curve first comes to the level of alignment; None where it never does."""
    for before, after in zip(curve.moments, curve.moments[1:]):
        low, high = (float(one.values[alignment].mean()) for one in (before, after))
        if low < level <= high:
            share = (level - low) / (high - low)
            first, second = (_common(curve, measure, one) for one in (before, after))
            return (1 - share) * first + share * second
    return None


def at_level(found: Sequence[Curve], measure: str, level: float, methods: Sequence[str]) -> pd.DataFrame:
    """The measure at the level of alignment: a line for each row, a column (method, seed) for each method and seed.

    Only seeds that all the methods have are taken. Raises `Refusal` where a method does not come there.
    """
    columns: dict[tuple[str, int], np.ndarray] = {}
    seeds = {method: {curve.seed for curve in found if curve.method == method} for method in methods}
    shared = sorted(set.intersection(*seeds.values()))
    for method in methods:
        for seed in shared:
            mine = [curve for curve in found if (curve.method, curve.seed) == (method, seed)]
            crossed = [rows for curve in mine if (rows := crossing(curve, measure, level)) is not None]
            if not crossed:
                raise Refusal(f"level must be one that {method} comes to with seed {seed}, got {level:.3f}")
            columns[method, seed] = np.mean(crossed, axis=0)
    return pd.DataFrame(columns).rename_axis(columns=["method", "seed"])


def tax(found: Sequence[Curve], of: str, measures: Sequence[str] = TAXES) -> pd.DataFrame:
    """What `of` keeps more than each other method at matched alignment: the table of `contrasts.contrasts`, corrected
    over the methods within each measure.

    Raises `Refusal` where `of` itself is left out.
    """
    level, left_out = matched_level(found)
    methods = [method for method in dict.fromkeys(curve.method for curve in found) if method not in left_out]
    if of not in methods:
        raise Refusal(f"of must be a method that gains in alignment, got {of}")
    return pd.concat(
        [
            contrasts({name: at_level(found, name, level, methods)}, of, level_errors(found, name, of, methods))
            for name in measures
        ],
        ignore_index=True,
    )


def level_errors(
    found: Sequence[Curve], measure: str, of: str, methods: Sequence[str], alignment: str = ALIGNMENT, draws: int = 500
) -> dict[str, float]:
    """How far what `of` has more of the measure than each other method at matched alignment moves when the prompts that
    alignment is measured on are drawn anew (bootstrap; with them the level moves, and where each curve comes to it):
    method -> standard deviation."""
    rows = len(found[0].moments[0].values[alignment])
    weights = np.random.default_rng(0).multinomial(rows, [1 / rows] * rows, draws) / rows
    kept = [curve for curve in found if curve.method in methods]
    aligned = [
        weights @ np.array([one.values[alignment] for one in curve.moments]).T for curve in kept
    ]  # (draw, moment)
    runs = [(curve.method, curve.seed) for curve in kept]
    best = {key: np.max([some.max(axis=1) for some, its in zip(aligned, runs) if its == key], axis=0) for key in runs}
    level = np.min(list(best.values()), axis=0)
    taxed: dict[tuple[str, int], list[np.ndarray]] = {}
    for curve, key, some in zip(kept, runs, aligned):
        values = np.array([_common(curve, measure, one).mean() for one in curve.moments])
        there = np.full(draws, np.nan)
        for i in reversed(range(len(values) - 1)):  # the first crossing is written last
            low, high = some[:, i], some[:, i + 1]
            share = (level - low) / np.where(high > low, high - low, np.nan)
            there = np.where((low < level) & (level <= high), (1 - share) * values[i] + share * values[i + 1], there)
        taxed.setdefault(key, []).append(there)
    means = pd.DataFrame({key: pd.DataFrame(some).mean() for key, some in taxed.items()}).T.groupby(level=0).mean()
    return {method: float((means.loc[of] - means.loc[method]).std()) for method in methods if method != of}


def verdicts(found: Sequence[Curve], confirming: Sequence[Curve], measure: str = TAXES[0]) -> list[Claim]:
    """The stated contrasts as claims, that the first keeps more of `measure` at matched alignment, by the confirming
    seeds alone; and that BNF needs less tuning, by `found`. Nothing is decided where there are fewer seeds than were
    stated, or the methods do not come to a common level."""
    lines = []
    for of, against, seeds in CONTRASTS:
        test = f"{LABELS[measure]} at matched alignment, {of} - {against}, {seeds} seeds"
        contrast = _contrast(confirming, measure, of, against, seeds)
        lines.append(Claim("2. lowest tax at equal alignment", test, contrast, 0.0, "10"))
    test = "alignment lost by an untuned rate, BNF - the others' mean"
    return [*lines, Claim("3. no tuning of its own", test, tuning(found, "BNF"), 0.0, "10", above=False)]


def _contrast(found: Sequence[Curve], measure: str, of: str, against: str, seeds: int) -> Interval | None:
    both = [curve for curve in found if curve.method in (of, against)]
    shared = {curve.seed for curve in both if curve.method == of} & {
        curve.seed for curve in both if curve.method == against
    }
    if len(shared) < seeds:
        return None
    level, left_out = matched_level(both)
    if left_out:
        return None
    frame = at_level(both, measure, level, [of, against])
    besides = level_errors(both, measure, of, [of, against])[against]
    paired = paired_difference(frame[of].to_numpy(), frame[against].to_numpy(), besides=besides)
    return Interval(paired.value, paired.low, paired.high)


def measured_variances(found: Sequence[Curve], of: str, measure: str) -> list[Components]:
    """What differences at matched alignment vary by between rows, between seeds, and else: for the power of the next
    stage. Empty with one seed."""
    level, left_out = matched_level(found)
    methods = [method for method in dict.fromkeys(curve.method for curve in found) if method not in left_out]
    return list(variances(at_level(found, measure, level, methods), of).values()) if of in methods else []


def trials(found: Sequence[Curve], alignment: str = ALIGNMENT) -> pd.DataFrame:
    """Whether a method needs tuning: the best alignment at the end that is to be expected of 1, 2, ... rates drawn
    without replacement (columns), and `within`: the factor between the largest and the smallest rate whose alignment is
    within 0.02 of the best's. Means over seeds."""
    table = {}
    for method in dict.fromkeys(curve.method for curve in found):
        ends: dict[float, list[float]] = {}
        for curve in found:
            if curve.method == method:
                ends.setdefault(curve.rate, []).append(float(curve.moments[-1].values[alignment].mean()))
        mean = {rate: float(np.mean(some)) for rate, some in ends.items()}
        near = [rate for rate, value in mean.items() if value >= max(mean.values()) - 0.02]
        expected = expected_best(list(mean.values()))
        table[method] = {f"{i + 1}": value for i, value in enumerate(expected)} | {"within": max(near) / min(near)}
    return pd.DataFrame(table).T


def tuning(found: Sequence[Curve], of: str, alignment: str = ALIGNMENT) -> Interval | None:
    """What a rate that was drawn without a look loses in alignment at the end against the best of its grid, `of` less
    the mean of the other methods with a grid: below 0 it needs less tuning than they. Over seeds (t), of those that all
    have; None with fewer than two."""
    ends: dict[str, dict[int, list[float]]] = {}
    for curve in found:
        seeds = ends.setdefault(curve.method, {})
        seeds.setdefault(curve.seed, []).append(float(curve.moments[-1].values[alignment].mean()))
    ends = {method: seeds for method, seeds in ends.items() if all(len(some) > 1 for some in seeds.values())}
    if of not in ends or len(ends) < 2:
        return None
    loss = pd.DataFrame(
        {
            method: {seed: max(some) - float(np.mean(some)) for seed, some in seeds.items()}
            for method, seeds in ends.items()
        }
    ).dropna()
    if len(loss) < 2:
        return None
    return t_interval((loss[of] - loss.drop(columns=of).mean(axis=1)).to_numpy())


def expected_best(values: Sequence[float]) -> list[float]:
    """The mean of the largest of k values drawn without replacement, k = 1, ..., n: the i-th smallest is it in
    C(i - 1, k - 1) of C(n, k) draws."""
    ordered, n = sorted(values), len(values)
    return [sum(comb(i, k - 1) * value for i, value in enumerate(ordered)) / comb(n, k) for k in range(1, n + 1)]


def unfinished(stages: Mapping[str, Mapping[str, Any]], methods: Mapping[str, Any], records: Records) -> pd.DataFrame:
    """A line for each stage of a config of `reproduce`: its runs, and how many of them there are."""
    done = {(record["method"], record["setting"], record["seed"]) for record in records}
    lines = {}
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
        lines[name] = {"runs": len(wanted), "done": there, "state": state}
    return pd.DataFrame(lines).T.rename_axis(index="stage")
