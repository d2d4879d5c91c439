"""Ranks and average ranks as the paper makes them, their intervals, and our scores beside the paper's."""

from collections.abc import Collection, Mapping
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pandas as pd

from lightning_bnf.reproduction.printed import METRICS, PrintedScores
from lightning_bnf.runtime.refusal import Refusal

MISSING = "-"


def ranks(scores: pd.DataFrame, lower_is_better: Collection[str] = ()) -> pd.DataFrame:
    """Ranks of the lines in each column, 1 the best; equals share the best rank of theirs, as in 1, 2, 2, 4.

    Raises `Refusal` where a score is missing, or `lower_is_better` names no column.
    """
    for name in lower_is_better:
        if name not in scores:
            raise Refusal(f"lower_is_better must be of {', '.join(map(str, scores))}, got {name!r}")
    if scores.isna().any(axis=None):
        name = scores.columns[scores.isna().any()][0]
        raise Refusal(f"scores must be a number for every line and column, got none of {name}")
    signed = scores.assign(**{name: -scores[name] for name in lower_is_better})
    return signed.rank(method="min", ascending=False).astype(int)


def average_rank(ranked: pd.DataFrame) -> pd.Series:
    """The mean over columns of each line's ranks, rounded to two digits, halves up: 4.125 is printed as 4.13."""
    return ranked.mean(axis=1).map(_half_up)


def _half_up(value: float) -> float:
    return float(Decimal(value).quantize(Decimal("0.01"), ROUND_HALF_UP))


def average_rank_intervals(
    resampled: Mapping[str, pd.DataFrame], lower_is_better: Collection[str] = ()
) -> pd.DataFrame:
    """How far average ranks could be off by the choice of prompts and seeds: a 95 % interval for each method, columns
    low, high (percentiles).

    `resampled`: metric -> means, a line for each bootstrap sample and a column for each method, as `matrix.resampled`
    makes them: the same samples in all metrics, in each of which ranks and average ranks are made anew.
    Raises `Refusal` where metrics have different methods or samples.
    """
    first = next(iter(resampled.values()))
    methods = list(first.columns)
    total = np.zeros(first.shape)
    for metric, means in resampled.items():
        if set(means.columns) != set(methods):
            raise Refusal(
                f"means must be of the same methods in all metrics ({', '.join(methods)}), got others in {metric!r}"
            )
        if len(means) != len(first):
            raise Refusal(f"metric {metric!r}: samples must be {len(first)}, as the first has, got {len(means)}")
        signed = means[methods].to_numpy() if metric not in lower_is_better else -means[methods].to_numpy()
        signed = np.round(signed, 12)  # equals by construction must not differ by rounding of sums
        total += 1 + (signed[:, None, :] > signed[:, :, None]).sum(axis=2)
    low, high = np.quantile(total / len(resampled), [0.025, 0.975], axis=0)
    return pd.DataFrame({"low": low, "high": high}, index=pd.Index(methods, name="method"))


def shown(paper: PrintedScores, metrics: Collection[str] = tuple(METRICS)) -> pd.DataFrame:
    """The paper's numbers as it prints them: "1153 (2)" and the average rank, all text."""
    columns = {
        METRICS[name]: [
            f"{score:.0f} ({rank})" if name.endswith("elo") else f"{score:.1f} ({rank})"
            for score, rank in zip(paper.scores[name], paper.ranks[name])
        ]
        for name in metrics
    }
    average = [f"{value:.2f}" for value in paper.average_rank]
    return pd.DataFrame(columns | {"Average rank": average}, index=paper.scores.index)


def beside_paper(
    ours: pd.DataFrame,
    paper: PrintedScores,
    lower_is_better: Collection[str] = (),
    rank_intervals: pd.DataFrame | None = None,
    digits: int = 2,
) -> pd.DataFrame:
    """Ours and the paper's numbers side by side, all text: scores with 95 % intervals and ranks, and average ranks.

    `ours`: tidy, with columns method, metric, score, low, high; methods are called as the paper calls them, metrics
    what they are. Ranks are among the methods that are in `ours`, the paper's among its own. Lines in the paper's
    order, then those that only we have; what one side lacks is "-". `rank_intervals`: from `average_rank_intervals`.
    Raises `Refusal` where a method lacks a metric, or has one twice.
    """
    twice = ours.duplicated(["method", "metric"])
    if twice.any():
        first = ours[twice].iloc[0]
        raise Refusal(f"ours must be one score of each metric, got {first['metric']} of {first['method']} twice")
    metrics = list(ours["metric"].unique())
    scores = ours.pivot(index="method", columns="metric", values="score")[metrics]
    ranked = ranks(scores, lower_is_better)
    text = ours.assign(
        text=[
            f"{row['score']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
            f" ({ranked.loc[row['method'], row['metric']]})"
            for _, row in ours.iterrows()
        ]
    ).pivot(index="method", columns="metric", values="text")[metrics]
    average = average_rank(ranked).map("{:.2f}".format)
    if rank_intervals is not None:
        average += [f" [{low:.2f}, {high:.2f}]" for low, high in rank_intervals.loc[average.index].to_numpy()]
    text["Average rank"] = average
    theirs = shown(paper)
    lines = [*theirs.index, *(method for method in ours["method"].unique() if method not in theirs.index)]
    return pd.concat({"ours": text, "paper": theirs}, axis=1).reindex(lines).fillna(MISSING)
