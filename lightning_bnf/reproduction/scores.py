"""The scores of a matrix of runs (`reproduce`) as tables like the paper's: methods by measures, with intervals.

Every value is a mean over test prompts and seeds. Intervals (95 %) are over both, with t and the degrees of freedom
that few seeds leave (`statistics.paired`); of one run they are over prompts alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lightning_bnf.evaluation.pass_rates import Record
from lightning_bnf.evaluation.statistics.intervals import Interval, t_interval
from lightning_bnf.evaluation.statistics.paired import paired_difference
from lightning_bnf.evaluation.win_rates import comparisons, controlled_win_rate, joined, outcome
from lightning_bnf.reproduction.runs import validation_rate
from lightning_bnf.runtime.refusal import Refusal

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

    def covers(self, record: Record) -> bool:
        """Whether a scored completion is of these prompts."""
        group, family = record.groups
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
    """Of each method the runs with the setting that passes most validation prompts, by method; settings are compared by
    the first seed that all of them have. Raises `Refusal` where they have none in common."""
    by_method: dict[str, dict[int | None, list[Mapping[str, Any]]]] = {}
    for record in records:
        by_method.setdefault(record["method"], {}).setdefault(record["setting"], []).append(record)
    found = {}
    for method, settings in by_method.items():
        ordered = [
            {run["seed"]: run for run in sorted(runs, key=lambda run: run["seed"])}
            for _, runs in sorted(settings.items(), key=lambda some: some[0] or 0)
        ]
        shared = [seed for seed in ordered[0] if all(seed in runs for runs in ordered)]
        if not shared:
            raise Refusal(f"{method}: settings must be tried with one seed in common, got none")
        best = max(ordered, key=lambda runs: validation_rate(runs[shared[0]])) if len(ordered) > 1 else ordered[0]
        found[method] = list(best.values())
    return found


def by_result(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], measure: str = "instructions"
) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The runs of `picked` in the order of tables and figures: the base first, then by mean, the largest first."""
    means = by_prompt(runs)[measure].T.groupby("method").mean().mean(axis=1)
    return {name: runs[name] for name in sorted(runs, key=lambda name: (name != BASE, -means[name]))}


def by_prompt(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], split: str = "test", decoding: str = "greedy"
) -> dict[str, pd.DataFrame]:
    """Measure -> a line for each prompt, a column (method, seed) for each run.

    Raises `Refusal` where there are no runs of the base, or methods were scored on different prompts.
    """
    scored = _scored(runs, split, decoding)
    base = scored[BASE][0]
    tables = {}
    for measure in MEASURES:
        columns = {
            (method, run["seed"]): {
                prompt: _value(measure, record, base[prompt])
                for prompt, record in records.items()
                if measure.covers(record)
            }
            for method, repeats in runs.items()
            for run, records in zip(repeats, scored[method], strict=True)
        }
        tables[measure.name] = pd.DataFrame(columns).rename_axis(columns=["method", "seed"])
    return tables


def resampled(scores: Mapping[str, pd.DataFrame], seed: int = 0, resamples: int = 2000) -> dict[str, pd.DataFrame]:
    """Measure -> means, a line for each bootstrap sample and a column for each method.

    `scores`: from `by_prompt`. A sample draws prompts with replacement, the same for all methods and for all measures
    of the same prompts; and of each method as many runs as it has, the same for all measures. As draws of n runs vary
    by (n - 1) / n of what n new runs would, how often a run was drawn is stretched about 1 to make up for it. Of one
    run nothing varies. Percentiles of such samples are too narrow an interval of three runs: where runs alone vary,
    95 % ones hold the truth in 0.81 of cases. So they serve what has no t (average ranks), and no mean.
    """
    rng = np.random.default_rng(seed)
    prompts: dict[tuple[str, ...], np.ndarray] = {}
    runs: dict[str, np.ndarray] = {}
    found = {}
    for measure, frame in scores.items():
        some = tuple(frame.index)
        if some not in prompts:
            prompts[some] = _counts(rng, len(some), resamples)
        columns = {}
        for method in methods_of(frame):
            values = frame[method].to_numpy(dtype=float)  # (prompts, runs)
            if method not in runs:
                n = values.shape[1]
                runs[method] = 1 + (_counts(rng, n, resamples) - 1) * np.sqrt(n / max(1, n - 1))
            columns[method] = (prompts[some] @ values * runs[method]).sum(axis=1) / values.size
        found[measure] = pd.DataFrame(columns)
    return found


def _counts(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """How often each of n is drawn, in n draws: (resamples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def methods_of(frame: pd.DataFrame) -> list[str]:
    """The methods of a measure's columns, in order."""
    return list(frame.columns.get_level_values("method").unique())


def _interval(values: np.ndarray) -> Interval:
    """Of the mean of (prompts, runs): over both, or over the one of which there are several; NaN of a single value."""
    if values.size == 1:
        return Interval(float(values.mean()), float("nan"), float("nan"))
    if min(values.shape) == 1:
        return t_interval(values.flatten())
    found = paired_difference(values)
    return Interval(found.value, found.low, found.high)


def _scored(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], split: str, decoding: str
) -> dict[str, list[dict[str, Record]]]:
    """Each method's runs, as records by prompt in the order of the base's; every run must hold the same prompts."""
    if BASE not in runs:
        raise Refusal(f"runs must hold the method {BASE!r} to win against, got {', '.join(runs) or 'none'}")
    scored = {method: [_records(run, split, decoding) for run in repeats] for method, repeats in runs.items()}
    base = scored[BASE][0]
    for method, repeats in scored.items():
        if any(records.keys() != base.keys() for records in repeats):
            raise Refusal(f"{method}: prompts must be the base's, got answers to others")
    return {
        method: [{prompt: records[prompt] for prompt in base} for records in repeats]
        for method, repeats in scored.items()
    }


def _records(run: Mapping[str, Any], split: str, decoding: str) -> dict[str, Record]:
    stored = [scored for scored in run["results"]["scores"][split] if scored["decoding"] == decoding]
    return {scored["prompt_id"]: Record(**scored | {"groups": tuple(scored["groups"])}) for scored in stored}


def _value(measure: Measure, record: Record, base: Record) -> float:
    return outcome(record, base) if measure.value == "win" else float(getattr(record, measure.value))


def means(scores: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tidy: columns method, metric, score, low, high (95 %, over prompts and runs), n (prompts)."""
    lines = []
    for name, frame in scores.items():
        for method in methods_of(frame):
            found = _interval(frame[method].to_numpy(dtype=float))
            lines.append((method, name, found.value, found.low, found.high, len(frame)))
    return pd.DataFrame(lines, columns=["method", "metric", "score", "low", "high", "n"])


def texts(tidy: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """What `means` gives, as a line for each method and a column for each metric: text such as "0.44 [0.38, 0.50]"."""
    shown = [
        f"{score:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
        for score, low, high in zip(tidy["score"], tidy["low"], tidy["high"])
    ]
    wide = tidy.assign(text=shown).pivot(index="method", columns="metric", values="text")
    return wide.loc[tidy["method"].unique(), tidy["metric"].unique()]


def by_seed(scores: Mapping[str, pd.DataFrame], measure: str) -> pd.DataFrame:
    """A measure's means over prompts: a line for each method, a column for each seed."""
    means = scores[measure].mean().unstack("seed")
    return means.loc[methods_of(scores[measure])]


def win_rates(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], split: str = "test", decoding: str = "greedy"
) -> pd.DataFrame:
    """Comparisons of each method's runs against the base's on prompts of trained families, by verifier score: shares
    won and tied, the win rate with ties counting half, and `controlled_win_rate` with an interval over prompts.
    """
    scored = _scored(runs, split, decoding)
    (measure,) = (measure for measure in MEASURES if measure.value == "win")
    base = [record for record in scored[BASE][0].values() if measure.covers(record)]
    table = {}
    for method in (name for name in runs if name != BASE):
        fought = joined([comparisons([run[record.prompt_id] for record in base], base) for run in scored[method]])
        level = controlled_win_rate(fought)
        table[method] = {
            "won": f"{(fought.win == 1).mean():.2f}",
            "tied": f"{(fought.win == 0.5).mean():.2f}",
            "win rate": f"{fought.win.mean():.2f}",
            "at equal lengths": f"{level.value:.2f} [{level.low:.2f}, {level.high:.2f}]",
            "comparisons": len(fought.win),
        }
    return pd.DataFrame(table).T


def tradeoff(records: Iterable[Mapping[str, Any]], gain: str = "instructions", tax: str = "reasoning") -> pd.DataFrame:
    """What each run has more than the base in two measures: columns method, setting, seed, learning rate,
    picked (whether its setting was), and the two by name."""
    records = list(records)
    base = [record for record in records if record["method"] == BASE]
    chosen = {(method, runs[0]["setting"]) for method, runs in picked(records).items()}
    lines = []
    for record in records:
        if record["method"] != BASE:
            scores = by_prompt(({BASE: base} if base else {}) | {"run": [record]})
            mean = {name: by_seed(scores, name).mean(axis=1) for name in (gain, tax)}
            more = {name: values["run"] - values[BASE] for name, values in mean.items()}
            key = record["method"], record["setting"]
            about = {
                "method": key[0],
                "setting": key[1],
                "seed": record["seed"],
                "learning rate": record["config"]["model"]["optimization"]["learning_rate"],
                "picked": key in chosen,
            }
            lines.append(about | more)
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
