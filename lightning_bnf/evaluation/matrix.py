"""The scores of a matrix of runs (`reproduce`) as tables like the paper's: methods by measures, with intervals.

Every value is a mean over test prompts of the mean over seeds; intervals are bootstraps over prompts (95 %), the same
ones for all methods, so that differences between methods are paired.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lightning_bnf.evaluation.pass_rates import paired_bootstrap
from lightning_bnf.evaluation.win_rates import Battles, Interval, controlled_win_rate, win_rate
from lightning_bnf.reproduction import validation_rate

BASE = "Base"
ARITHMETIC = ("subtraction", "smallest")
"""Families that are kept out of training and ask for a number."""


class Measure(NamedTuple):
    """What is measured of a completion. group: trained or kept-out prompts, or both (None); families: only these, or
    all but these (`without`); value: passed, length, or win, against the base (ties count half)."""

    name: str
    group: str | None
    value: str
    families: Sequence[str] | None = None
    without: Sequence[str] = ()

    def covers(self, one: Mapping[str, Any]) -> bool:
        """Whether a scored completion is of these prompts."""
        group, family = one["groups"]
        return (
            (self.group is None or group == self.group)
            and (self.families is None or family in self.families)
            and family not in self.without
        )


MEASURES = (
    Measure("instructions", "trained", "passed"),
    Measure("win rate", "trained", "win"),
    Measure("reasoning", "kept-out", "passed", ARITHMETIC),
    Measure("other instructions", "kept-out", "passed", None, ARITHMETIC),
    Measure("length", "trained", "length"),
    Measure("length, kept out", "kept-out", "length"),
)
QUALITIES = tuple(measure.name for measure in MEASURES if measure.value != "length")
"""Measures of which more is better: two of alignment, then two on families that are kept out of training."""
LENGTHS = tuple(measure.name for measure in MEASURES if measure.value == "length")
"""In tokens."""


def picked(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Of each method the runs with the setting that passes most validation prompts with the first seed, by method."""
    by_method: dict[str, dict[int | None, list[Mapping[str, Any]]]] = {}
    for record in records:
        by_method.setdefault(record["method"], {}).setdefault(record["setting"], []).append(record)
    found = {}
    for method, settings in by_method.items():
        ordered = [
            sorted(runs, key=lambda run: run["seed"])
            for _, runs in sorted(settings.items(), key=lambda some: some[0] or 0)
        ]
        found[method] = max(ordered, key=lambda runs: validation_rate(runs[0])) if len(ordered) > 1 else ordered[0]
    return found


def by_prompt(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], split: str = "test", decoding: str = "greedy"
) -> dict[str, pd.DataFrame]:
    """Measure -> a line for each prompt, a column for each method, the mean over the method's seeds.

    Raises ValueError where there are no runs of the base, or methods were scored on different prompts.
    """
    base = _base(runs, split, decoding)
    found = {}
    for measure in MEASURES:
        columns = {}
        for method, repeats in runs.items():
            seeds = [
                pd.Series(
                    {
                        one["prompt_id"]: _value(measure, one, base[one["prompt_id"]])
                        for one in _scored(repeat, split, decoding)
                        if measure.covers(one)
                    }
                )
                for repeat in repeats
            ]
            columns[method] = pd.concat(seeds, axis=1).mean(axis=1)
        found[measure.name] = pd.DataFrame(columns)
    return found


def _base(runs: Mapping[str, Sequence[Mapping[str, Any]]], split: str, decoding: str) -> dict[str, Mapping[str, Any]]:
    """What the base was scored at, by prompt; every run must hold the same prompts."""
    if BASE not in runs:
        raise ValueError(f"runs: there is no method {BASE!r} to win against; there are {', '.join(runs) or 'none'}")
    found = {one["prompt_id"]: one for one in _scored(runs[BASE][0], split, decoding)}
    for method, repeats in runs.items():
        for record in repeats:
            if {one["prompt_id"] for one in _scored(record, split, decoding)} != set(found):
                raise ValueError(f"{method}: scored on different prompts than the base; accepted: the same for all")
    return found


def _scored(record: Mapping[str, Any], split: str, decoding: str) -> list[Mapping[str, Any]]:
    return [one for one in record["results"]["scores"][split] if one["decoding"] == decoding]


def _value(measure: Measure, one: Mapping[str, Any], base: Mapping[str, Any]) -> float:
    if measure.value != "win":
        return float(one[measure.value])
    own, other = (side["score"] if side["finished"] else 0.0 for side in (one, base))
    return float(0.5 + 0.5 * np.sign(own - other))


def means(scores: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tidy: columns method, metric, score, low, high, n (prompts)."""
    lines = [
        {
            "method": method,
            "metric": name,
            "score": values.mean(),
            **dict(zip(("low", "high"), paired_bootstrap(values.to_numpy()))),
            "n": len(values),
        }
        for name, frame in scores.items()
        for method, values in frame.items()
    ]
    return pd.DataFrame(lines)


def texts(tidy: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """What `means` gives, as a line for each method and a column for each metric: text such as "0.44 [0.38, 0.50]"."""
    shown = [
        f"{score:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
        for score, low, high in zip(tidy["score"], tidy["low"], tidy["high"])
    ]
    wide = tidy.assign(text=shown).pivot(index="method", columns="metric", values="text")
    return wide.loc[tidy["method"].unique(), tidy["metric"].unique()]


def differences(scores: Mapping[str, pd.DataFrame], of: str) -> pd.DataFrame:
    """What method `of` has more than each other, prompt by prompt: text such as "+0.04 [-0.02, +0.10]"."""
    table = {}
    for name, frame in scores.items():
        column = {}
        for other in frame.columns.drop(of):
            difference = (frame[of] - frame[other]).to_numpy()
            low, high = paired_bootstrap(difference)
            column[other] = f"{difference.mean():+.2f} [{low:+.2f}, {high:+.2f}]"
        table[name] = column
    return pd.DataFrame(table)


def win_rates(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], split: str = "test", decoding: str = "greedy"
) -> pd.DataFrame:
    """Battles of each method's runs against the base's on prompts of trained families, by verifier score: text such as
    "0.55 [0.51, 0.60]", ties counting half; "at equal lengths" is `win_rates.controlled_win_rate`."""
    base = _base(runs, split, decoding)
    (measure,) = (one for one in MEASURES if one.value == "win")
    table = {}
    for method in (name for name in runs if name != BASE):
        own = [one for run in runs[method] for one in _scored(run, split, decoding) if measure.covers(one)]
        places = {name: i for i, name in enumerate(dict.fromkeys(one["prompt_id"] for one in own))}
        others = [base[one["prompt_id"]] for one in own]
        fought = Battles(
            np.array([places[one["prompt_id"]] for one in own]),
            np.array([_value(measure, one, other) for one, other in zip(own, others)]),
            np.array([one["length"] for one in own]),
            np.array([other["length"] for other in others]),
        )
        table[method] = {
            "won": f"{(fought.win == 1).mean():.2f}",
            "tied": f"{(fought.win == 0.5).mean():.2f}",
            "win rate": _text(win_rate(fought)),
            "at equal lengths": _text(controlled_win_rate(fought)),
            "battles": len(own),
        }
    return pd.DataFrame(table).T


def _text(found: Interval) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def tradeoff(records: Iterable[Mapping[str, Any]], gain: str = "instructions", tax: str = "reasoning") -> pd.DataFrame:
    """What each run has more than the base in two measures: columns method, setting, seed, picked (whether its setting
    was), and the two by name."""
    records = list(records)
    base = [record for record in records if record["method"] == BASE]
    chosen = {(method, runs[0]["setting"]) for method, runs in picked(records).items()}
    lines = []
    for record in records:
        if record["method"] != BASE:
            scores = by_prompt(({BASE: base} if base else {}) | {"run": [record]})
            more = {name: (scores[name]["run"] - scores[name][BASE]).mean() for name in (gain, tax)}
            key = record["method"], record["setting"]
            lines.append({"method": key[0], "setting": key[1], "seed": record["seed"], "picked": key in chosen, **more})
    return pd.DataFrame(lines)


def runs_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """What was tried: a line for each method and setting, with validation rates by seed; the picked one is marked."""
    records = list(records)
    chosen = {(method, runs[0]["setting"]) for method, runs in picked(records).items()}
    lines: dict[tuple[str, int | None], dict[str, Any]] = {}
    for record in sorted(records, key=lambda one: (one["method"], one["setting"] or 0, one["seed"])):
        key = (record["method"], record["setting"])
        model = record["config"]["model"]
        line = lines.setdefault(
            key,
            {
                "method": key[0],
                "learning rate": model["optimization"]["learning_rate"],
                "loss": ", ".join(f"{name} {value}" for name, value in model["loss"].get("init_args", {}).items()),
                "picked": "yes" if key in chosen else "",
            },
        )
        line[f"seed {record['seed']}"] = f"{validation_rate(record):.2f}"
    return pd.DataFrame(lines.values()).fillna("")
