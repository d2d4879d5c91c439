"""What the comparison at matched alignment hangs on, and what is in it: levels, widths, rates, families, pairs.

None of it decides anything: verdicts are `frontier.verdicts`' alone. What is kept at matched alignment is an average
over the rates that were run, so it is a property of a method with these rates; here one sees how much of a difference
each of them carries, and what would be found by other choices that one might have made.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from lightning_bnf.evaluation.likelihood.material import LikelihoodRows, material
from lightning_bnf.evaluation.likelihood.measures import row_fingerprints
from lightning_bnf.evaluation.statistics.paired import holm, paired_difference
from lightning_bnf.reproduction.claims import decided
from lightning_bnf.reproduction.curves import ALIGNMENT, PLACES, Curve, Moment, shared_seeds
from lightning_bnf.reproduction.frontier import TAXES, contrast
from lightning_bnf.reproduction.matching import Cells, cells, fitted, shared_gain
from lightning_bnf.reproduction.tuning import at_best_rate
from lightning_bnf.runtime.refusal import Refusal

KEPT_OUT = "passes_kept_out"
Runs = Sequence[Curve]


def pairs(found: Runs, of: str, others: Sequence[str], measures: Sequence[str] = TAXES) -> pd.DataFrame:
    """The stated comparison of two methods, each pair at its own level and by all seeds that both share.

    Tidy: columns metric, method, difference (of `of` from it), low, high (95 %), df, p, corrected (Holm's over the
    lines of a measure) and why, where there is no comparison.
    """
    tables = []
    for measure in measures:
        lines = []
        for other in others:
            seeds = shared_seeds([curve for curve in found if curve.method in (of, other)])
            one, why = decided(contrast, found, measure, of, other, seeds)
            numbers = [np.nan] * 5 if one is None else [one.value, one.low, one.high, one.df, one.p]
            lines.append((measure, other, *numbers, why))
        columns = ["metric", "method", "difference", "low", "high", "df", "p", "why"]
        table = pd.DataFrame(lines, columns=columns)
        known = table["p"].notna()
        table["corrected"] = np.nan
        table.loc[known, "corrected"] = holm(table.loc[known, "p"].tolist())
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def by_choice(found: Runs, of: str, others: Sequence[str], measures: Sequence[str] = TAXES) -> pd.DataFrame:
    """How what `of` keeps more than others hangs on choices: a line for each other method and measure, a column for
    each choice, no intervals.

    Columns: `stated`; the level at a half and the whole of the common gain; the fit twice and half as wide; without
    each of the rates; each method's `tuned` rate alone (`tuning.at_best_rate`); and `best moment`, the highest value of
    the measure at a moment that comes to the level. NaN where a method does not gain then, or its moments do not give a
    line. Of the seeds that both share; methods that are not there are left out.
    """
    lines = {}
    for other in others:
        both = [curve for curve in found if curve.method in (of, other)]
        if {curve.method for curve in both} != {of, other} or not shared_seeds(both):
            continue
        whole = cells(both, [of, other], measures)
        rates = sorted({curve.rate for curve in both})
        some = {
            f"without {rate:.0e}": cells([one for one in both if one.rate != rate], [of, other], measures)
            for rate in (rates if len(rates) > 1 else ())
        } | {"tuned": cells(at_best_rate(both), [of, other], measures)}
        for measure in measures:
            kept = {
                "stated": fitted(whole, measure),
                "half the gain": fitted(whole, measure, part=0.5),
                "all the gain": fitted(whole, measure, part=1.0),
                "wide fit": fitted(whole, measure, width=2.0),
                "narrow fit": fitted(whole, measure, width=0.5),
            }
            kept |= {name: fitted(runs, measure) for name, runs in some.items()}
            kept["best moment"] = _best(whole, measure)
            lines[other, measure] = {name: float((one[of] - one[other]).mean()) for name, one in kept.items()}
    return pd.DataFrame(lines).T


def _best(runs: Cells, measure: str) -> dict[str, np.ndarray]:
    """Of moments of means over seeds that come to the level: the highest mean of the measure."""
    shares = {method: own[ALIGNMENT].mean(axis=(0, 2)) for method, own in runs.items()}
    gain = float(shared_gain(shares))
    found = {}
    for method, own in runs.items():
        there = shares[method] - shares[method][0] >= gain - 10.0**-PLACES
        found[method] = own[measure].mean(axis=(0, 2))[there].max()
    return found


def at_ends(found: Runs, of: str, against: str, measures: Sequence[str] = (ALIGNMENT, *TAXES)) -> pd.DataFrame:
    """What `of` has more than another method at the end of runs with the same rate, whatever both align: paired by row
    and seed, of the seeds that both have at it.

    Tidy: columns rate, metric, difference, low, high (95 %), df, p; not corrected. Rates of fewer than two seeds are
    left out.
    """
    lines = []
    runs = {(curve.method, curve.rate, curve.seed): curve.moments[-1].values for curve in found}
    for rate in sorted({curve.rate for curve in found if curve.method == of}):
        own, other = ({seed for m, r, seed in runs if (m, r) == (method, rate)} for method in (of, against))
        if len(seeds := sorted(own & other)) < 2:
            continue
        for measure in measures:
            first, second = (
                np.array([runs[method, rate, seed][measure] for seed in seeds]).T for method in (of, against)
            )
            one = paired_difference(first, second)
            lines.append((rate, measure, one.value, one.low, one.high, one.df, one.p))
    return pd.DataFrame(lines, columns=["rate", "metric", "difference", "low", "high", "df", "p"])


def by_family(found: Runs, families: Sequence[str], measure: str = KEPT_OUT) -> list[Curve]:
    """The curves with a measure for each family instead of theirs, by its name: the family's rows of `measure`.

    families: of each row, in the order of the rows. Raises `Refusal` for another number of them.
    """
    names = np.array(families)

    def split(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(values[measure]) != len(names):
            raise Refusal(f"families must be of {len(values[measure])} rows, got {len(names)}")
        return {family: values[measure][names == family] for family in dict.fromkeys(families)}

    return [
        curve._replace(
            moments=[Moment(one.share, {ALIGNMENT: one.values[ALIGNMENT]} | split(one.values)) for one in curve.moments]
        )
        for curve in found
    ]


def kept_out_families(record: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, root: Path = Path()) -> list[str]:
    """The family of each prompt that is kept out, in the order of a stored result's rows. root: where the paths of its
    config begin. Raises `Refusal` where the file holds other prompts than were measured."""
    held = record["results"]["likelihood"]["fingerprints"]["verified"]
    callbacks = record["config"]["trainer"]["callbacks"]
    rows = next(one["init_args"]["rows"] for one in callbacks if one["class_path"].endswith(".MeasureLikelihood"))
    path = str(root / rows["verified"])
    asked = LikelihoodRows(choices=[], prose=None, verified=path, verified_rows=rows["verified_rows"])
    of = material(asked, tokenizer)
    if (found := row_fingerprints(of)["verified"]) != held:
        raise Refusal(f"{path} must hold the prompts that were measured ({held}), got others ({found})")
    return [prompt.family for prompt in of.verified if prompt.kept_out]
