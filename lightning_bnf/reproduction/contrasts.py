"""A matrix's methods against one of them: paired by prompt and by seed, corrected, and with what could have been seen.

Takes the tables of `scores.by_prompt`. Methods are run with the same seeds, of which each gives all methods the same
rows and the same start, so runs are paired by seed; one that was run once (the base) is compared with every run.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from lightning_bnf.evaluation.statistics.coverage import simulated_coverage
from lightning_bnf.evaluation.statistics.paired import (
    Components,
    careful_p,
    components,
    differences,
    holm,
    paired_difference,
    pooled,
    shared_seed_square,
)
from lightning_bnf.evaluation.statistics.power import seeds_needed, smallest_difference
from lightning_bnf.reproduction.scores import BASE, methods_of
from lightning_bnf.runtime.refusal import Refusal

Scores = Mapping[str, pd.DataFrame]


def contrasts(
    scores: Scores, of: str, besides: Mapping[str, float] | None = None, by_seeds: bool = False
) -> pd.DataFrame:
    """What method `of` has more than each other, in every measure. `besides`: of other methods, the standard error of
    what their difference from `of` depends on beside these prompts and seeds; `by_seeds`: as in `paired_difference`.

    Tidy: columns metric, method, difference, low, high (95 %), df, p, and corrected: Holm's over all lines, of
    p-values that do not trust a single comparison's seeds (`careful_p`). Where both were run once there is no interval:
    NaN from `low` on. Raises `Refusal` where methods have different seeds.
    """
    lines = []
    for metric, frame in scores.items():
        found = {other: _less(frame, of, other) for other in methods_of(frame) if other != of}
        several = [d for d in found.values() if d.shape[1] > 1]
        shared = shared_seed_square(several) if several else (0.0, 1.0)
        for other, d in found.items():
            if d.shape[1] == 1:
                lines.append((metric, other, float(d.mean()), *[np.nan] * 5))
                continue
            more = (besides or {}).get(other, 0.0)
            one = paired_difference(d, besides=more, by_seeds=by_seeds)
            careful = careful_p(d, *shared, more, by_seeds)
            lines.append((metric, other, one.value, one.low, one.high, one.df, one.p, careful))
    table = pd.DataFrame(lines, columns=["metric", "method", "difference", "low", "high", "df", "p", "corrected"])
    known = table["corrected"].notna()
    table.loc[known, "corrected"] = holm(table.loc[known, "corrected"].tolist())
    return table


def _less(frame: pd.DataFrame, one: str, other: str) -> np.ndarray:
    """one - other, (prompts, seeds)."""
    first, second = paired(frame, one, other)
    return first - second


def contrast_texts(table: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """What `contrasts` gives, as a line for each method and a column for each measure: "+0.04 [-0.02, +0.10]", with a
    star where the corrected p is below 0.05."""
    shown = [
        f"{one.difference:+.{digits}f} "
        + ("(one seed)" if np.isnan(one.low) else f"[{one.low:+.{digits}f}, {one.high:+.{digits}f}]")
        + ("*" if one.corrected < 0.05 else "")
        for one in table.itertuples()
    ]
    wide = table.assign(text=shown).pivot(index="method", columns="metric", values="text")
    return wide.loc[table["method"].unique(), table["metric"].unique()]


def paired(frame: pd.DataFrame, one: str, other: str) -> tuple[np.ndarray, np.ndarray]:
    """Two methods' values, (prompts, seeds) each, seeds in the same order. Raises `Refusal` for other seeds."""
    first, second = frame[one], frame[other]
    if min(first.shape[1], second.shape[1]) > 1:
        if set(first.columns) != set(second.columns):
            raise Refusal(
                f"{other}: seeds must be those of {one}, {', '.join(map(str, first.columns))}, got "
                f"{', '.join(map(str, second.columns))}"
            )
        second = second[list(first.columns)]
    return first.to_numpy(dtype=float), second.to_numpy(dtype=float)


def variances(frame: pd.DataFrame, of: str) -> dict[str, Components]:
    """What differences between `of` and each other trained method vary by, where both have several seeds."""
    found = {}
    for other in (method for method in methods_of(frame) if method not in (of, BASE)):
        first, second = paired(frame, of, other)
        if min(first.shape[1], second.shape[1]) > 1:
            found[other] = components(differences(first, second))
    return found


def seen(scores: Scores, of: str, wanted: Sequence[float] = (0.08, 0.04)) -> pd.DataFrame:
    """What these prompts and seeds could see: a line for each measure.

    Columns: prompts, seeds, the smallest difference that is told from 0 in four of five such experiments, and for each
    difference of `wanted` the seeds that would do ("over 200": no number of seeds, more prompts are needed). Variances
    are means over `of` against each other method.
    """
    table = {}
    for metric, frame in scores.items():
        measured = pooled(list(variances(frame, of).values()))
        prompts, seeds = len(frame), frame[of].shape[1]
        table[metric] = {
            "prompts": prompts,
            "seeds": seeds,
            "smallest seen": f"{smallest_difference(prompts, seeds, measured):.2f}",
        } | {f"seeds for {some:g}": _needed(some, prompts, measured) for some in wanted}
    return pd.DataFrame(table).T.rename_axis(index="measure")


def _needed(difference: float, prompts: int, measured: Components) -> str:
    try:
        return str(seeds_needed(difference, prompts, measured))
    except Refusal:
        return "over 200"


def coverage(
    scores: Scores,
    of: str,
    against: Sequence[str],
    seeds: Sequence[int] = (3, 10),
    repeats: int = 2000,
    draws: Sequence[int] = (1, 2, 3),
) -> pd.DataFrame:
    """How often intervals hold the truth where runs vary as these do: a line for each measure, method, variance between
    seeds (the mean over all comparisons, and the largest), number of seeds and draw. Measures are of passes (0 or 1).

    Tidy: columns metric, method, variance (mean or largest), seed_sd, seeds, draw, repeats, coverage.
    """
    lines = []
    for metric, frame in scores.items():
        measured = list(variances(frame, of).values())
        sizes = {"mean": pooled(measured).seed, "largest": max(one.seed for one in measured)}
        for other, (name, variance), count, draw in product(against, sizes.items(), seeds, draws):
            first, second = paired(frame, of, other)
            found = simulated_coverage(first, second, max(0.0, variance), count, repeats, draw)
            spread = round(max(0.0, variance) ** 0.5, 4)
            lines.append((metric, other, name, spread, count, draw, repeats, round(found, 4)))
    columns = ["metric", "method", "variance", "seed_sd", "seeds", "draw", "repeats", "coverage"]
    return pd.DataFrame(lines, columns=columns)
