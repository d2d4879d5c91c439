"""The frontier: what methods pay in other skills at equal alignment, over learning rates and moments of each run.

Takes results of `reproduce frontier`, whose runs were measured at shares of their steps and at the end. Alignment is
the share of test prompts of trained families whose greedy answer passes its verifier. What is taxed are multiple choice
and real text, by likelihood, and families that are kept out of training. A method's curve at a rate goes from the base
through these moments, averaged over seeds. The tax at matched alignment is read off where a curve first comes to a
level of alignment, row by row between the two moments around it, and is the mean over the rates whose curves come
there: no rate and no moment is picked.

    level           three quarters of the way from the base to the lowest over methods of the highest alignment that
                    their curves come to
    left out        methods whose gain in alignment is under half of the median method's, which would set the level
                    alone; of two methods one with under a third of the other's
    runs            of a method and seed all rates, or none
    seeds           each is left out once, and the level and the crossings are found again (jackknife, about what all
                    give)
    test            paired by row and seed, t with the degrees of freedom that there are, Holm's correction over the
                    methods, for each measure by itself; to its error is added how much the difference moves when the
                    prompts that alignment is measured on are drawn anew

When this was settled: multiple choice and real text as measures, and the rules, when the base and BNF with one seed had
been run; that kept-out families' passes are a tax as well, after BNF's highest rate had lost many of them; the three
quarters, and `tuning.tuning` as it is, when all methods had been run with one seed and four with a second; all of it
before a confirming seed was run. Until then the level was the whole of the common gain. There the method that sets it
is read at the one rate and moment where it is best, by luck too: in simulated experiments with runs like these 95 %
intervals held the truth in 0.91 to 0.99 of cases, in 0.82 where rates end alike, and no number of seeds mended that; at
three quarters in 0.94 to 0.995, and they are narrower. The table of all methods has one level, a contrast of two
methods its own, so their numbers differ.

`tuning.at_best_rate` gives the same comparison of each method at the rate that it aligns best with. It decides nothing;
it was added when DPO with one seed had been looked at too, because a mean over the rates that come to the level leaves
out those at which a method breaks before it.

A first look at 22 runs of one seed had other measures, and showed that they could not answer. Whether held-out pairs
are ranked right moved by one to five pairs of 62 (of kept-out families by none) where greedy passes rose by 37 to 47
prompts of 264. And CommonsenseQA by letters, which the base answers no better than chance, "lost" 0.1 nats of the right
letter's log-prob as policies grew surer of all letters alike; asked for the option's text, its rank stays what it was.
Hence greedy passes, options by their text, and the right one's rank.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from lightning_bnf.evaluation.statistics.intervals import Interval
from lightning_bnf.evaluation.statistics.paired import Components, paired_difference
from lightning_bnf.reproduction.claims import Claim
from lightning_bnf.reproduction.contrasts import contrasts, variances
from lightning_bnf.reproduction.curves import (
    ALIGNMENT,
    PLACES,
    Curve,
    aligned,
    averaged,
    common_rows,
    complete,
    crossing,
    needed_seeds,
    shared_seeds,
)
from lightning_bnf.reproduction.tuning import tuning
from lightning_bnf.runtime.refusal import Refusal

Number = TypeVar("Number", float, np.ndarray)
LABELS = {
    "choices_ranked": "wrong options ranked below the right one",
    "prose": "log-prob of real text",
    "passes_kept_out": "kept-out families' answers that pass",
}
TAXES = tuple(LABELS)
"""Above is better. The stated contrasts are asked of each."""
METHODS = ("BNF", "DPO", "SFT", "SimPO", "BNF-restore", "NLL+PLL", "IPO", "KTO", "ORPO")
"""What is compared at one level; the weight's powers and unpaired rows are questions of their own."""
CONTRASTS = (("BNF", "DPO", 16), ("BNF", "SimPO", 10), ("BNF", "SFT", 10))
"""What the confirming seeds are for (`reproduce frontier --scale confirm`): method, against, how many seeds, of which
`FIRST_SEED` is the first."""
FIRST_SEED = 11
PART_OF_GAIN = 0.75
"""Of the gain in alignment that methods have in common: where they are compared."""


def matched_level(found: Sequence[Curve]) -> tuple[float, list[str]]:
    """Of averaged curves: the level of alignment at which methods are compared, and the methods that are left out."""
    start, best = aligned(found[0].moments[0]), _highest(found)
    half = float(np.median([value - start for value in best.values()])) / 2
    kept = [method for method, value in best.items() if value > start and value - start >= half]
    if not kept:
        raise Refusal("records must hold a method that gains in alignment, got none")
    level = _level(start, min(best[method] for method in kept))
    return level, [method for method in best if method not in kept]


def _highest(found: Sequence[Curve]) -> dict[str, float]:
    """Of averaged curves: method -> the highest alignment that its rates come to, the base's at least."""
    best: dict[str, float] = {}
    for curve in found:
        best[curve.method] = max(best.get(curve.method, 0.0), *map(aligned, curve.moments))
    return best


def _level(start: Number, common: Number) -> Number:
    """start: the base's alignment; common: the highest that all methods come to. A hair below where they are compared,
    so that a curve which comes to just that alignment comes to it however it was rounded."""
    return start + PART_OF_GAIN * (common - start) - 10.0 ** (2 - PLACES)


def at_level(found: Sequence[Curve], measure: str, methods: Sequence[str]) -> pd.DataFrame:
    """The measure at the level of alignment that these methods come to: a line for each row, a column (method, seed)
    for each method and shared seed, whose mean over seeds is what the averaged curves of all have at their level.

    With k > 1 seeds a column is that, and k - 1 times what the mean over all sets without a seed has more than the set
    without this one (the level found again): the jackknife's pseudo-value, with its mean put where all seeds are, as
    crossings jump and its own would move by k - 1 times the jump. Raises `Refusal` where a method gains nothing.
    """
    mine = [curve for curve in found if curve.method in methods]
    seeds = needed_seeds(mine)
    whole, k = crossings(averaged(mine, seeds), measure, methods), len(seeds)
    without = {
        seed: crossings(averaged(mine, [one for one in seeds if one != seed]), measure, methods) if k > 1 else whole
        for seed in seeds
    }
    columns: dict[tuple[str, int], np.ndarray] = {}
    for method in methods:
        mean = np.mean([one[method] for one in without.values()], axis=0)
        columns |= {(method, seed): whole[method] + (k - 1) * (mean - without[seed][method]) for seed in seeds}
    return pd.DataFrame(columns).rename_axis(columns=["method", "seed"])


def crossings(found: Sequence[Curve], measure: str, methods: Sequence[str]) -> dict[str, np.ndarray]:
    """Of averaged curves: method -> the measure's rows at the level all come to, the mean over the rates that do.

    Raises `Refusal` where one of them gains nothing.
    """
    best, start = _highest(found), aligned(found[0].moments[0])
    least = min(best, key=best.__getitem__)
    if best[least] <= start:
        raise Refusal(
            f"methods must gain in alignment, got {least}, with {best[least]:.3f} at most, {start:.3f} of the base"
        )
    level, rows = _level(start, best[least]), {}
    for method in methods:
        crossed = [crossing(curve, measure, level) for curve in found if curve.method == method]
        rows[method] = np.mean([some for some in crossed if some is not None], axis=0)
    return rows


def tax(found: Sequence[Curve], of: str, measures: Sequence[str] = TAXES) -> pd.DataFrame:
    """What `of` keeps more than each other method at matched alignment: the table of `contrasts.contrasts`, corrected
    over the methods within each measure.

    Raises `Refusal` where `of` itself is left out.
    """
    methods = aligned_methods(found)
    if of not in methods:
        raise Refusal(f"of must be a method that gains in alignment, got {of}")
    return pd.concat(
        [
            contrasts({name: at_level(found, name, methods)}, of, level_errors(found, name, of, methods))
            for name in measures
        ],
        ignore_index=True,
    )


def aligned_methods(found: Sequence[Curve]) -> list[str]:
    """All but those that hardly gain, see `matched_level`, and those that gain nothing once a seed is left out. Raises
    `Refusal` where no seed is shared by all."""
    seeds = needed_seeds(found)
    _, left_out = matched_level(averaged(found, seeds))
    for seed in seeds if len(seeds) > 1 else ():
        some = averaged(found, [one for one in seeds if one != seed])
        start = aligned(some[0].moments[0])
        gains = {curve.method for curve in some if max(map(aligned, curve.moments)) > start}
        left_out += [curve.method for curve in some if curve.method not in gains]
    return [method for method in dict.fromkeys(curve.method for curve in found) if method not in left_out]


def standing(found: Sequence[Curve]) -> pd.DataFrame:
    """By method, the best first: the highest alignment that its curves come to, what that is above the base, and
    whether it is compared at matched alignment (`aligned_methods`)."""
    kept, means = aligned_methods(found), averaged(found, needed_seeds(found))
    start, highest = aligned(means[0].moments[0]), pd.Series(_highest(means))
    compared = ["yes" if method in kept else "left out" for method in highest.index]
    table = pd.DataFrame({"highest alignment": highest, "gain": highest - start, "compared": compared})
    return table.sort_values("highest alignment", ascending=False, kind="stable")


def level_errors(
    found: Sequence[Curve], measure: str, of: str, methods: Sequence[str], draws: int = 500
) -> dict[str, float]:
    """How far what `of` has more of the measure than each other method at matched alignment moves when the prompts that
    alignment is measured on are drawn anew (bootstrap; with them the level moves, and where each averaged curve comes
    to it): method -> standard deviation; infinite where in over 5 % of the draws they have no common level above the
    base."""
    mine = [curve for curve in found if curve.method in methods]
    kept = averaged(mine, shared_seeds(mine))
    rows = len(kept[0].moments[0].values[ALIGNMENT])
    weights = np.random.default_rng(0).multinomial(rows, [1 / rows] * rows, draws) / rows
    passing = [
        np.round(weights @ np.array([one.values[ALIGNMENT] for one in curve.moments]).T, PLACES) for curve in kept
    ]
    best: dict[str, np.ndarray] = {}
    for curve, some in zip(kept, passing):
        best[curve.method] = np.maximum(best.get(curve.method, 0.0), some.max(axis=1))
    level = _level(passing[0][:, 0], np.min(list(best.values()), axis=0))
    taxed: dict[str, list[np.ndarray]] = {}
    for curve, some in zip(kept, passing):
        values = np.array([common_rows(curve, measure, one).mean() for one in curve.moments])
        there = np.full(draws, np.nan)
        for i in reversed(range(len(values) - 1)):  # the first crossing is written last
            low, high = some[:, i], some[:, i + 1]
            share = (level - low) / np.where(high > low, high - low, np.nan)
            there = np.where((low < level) & (level <= high), (1 - share) * values[i] + share * values[i + 1], there)
        taxed.setdefault(curve.method, []).append(there)
    means = {method: pd.DataFrame(some).mean() for method, some in taxed.items()}
    errors = {}
    for method in (one for one in methods if one != of):
        differences = means[of] - means[method]
        errors[method] = float(differences.std()) if differences.isna().mean() <= 0.05 else np.inf
    return errors


def verdicts(found: Sequence[Curve], confirming: Sequence[Curve]) -> list[Claim]:
    """The stated contrasts as claims, that the first keeps more of each measure of `TAXES` at matched alignment, by
    the confirming seeds alone; for each measure that it does so in all of them; and that BNF gains less by tuning, by
    `found`. Nothing is decided where seeds that were stated are missing, or one of both hardly aligns."""
    found, confirming = complete(found, METHODS), complete(confirming, METHODS)
    lines = []
    for measure in TAXES:
        at, several = f"{LABELS[measure]} at matched alignment", []
        for of, against, seeds in CONTRASTS:
            found_ = contrast(confirming, measure, of, against, range(FIRST_SEED, FIRST_SEED + seeds))
            test = f"{at}, {of} - {against}, {seeds} seeds"
            several.append(Claim(f"2. lower tax than {against} at equal alignment", test, found_, 0.0, "10"))
        names = ", ".join(against for _, against, _ in CONTRASTS)
        lines += [*several, _least(several, f"{at}, BNF - each of {names}: the least")]
    test = "alignment gained by tuning the rate, BNF - the others' mean"
    return [*lines, Claim("3. no tuning of its own", test, _tuning(found), 0.0, "10", above=False)]


def _tuning(found: Sequence[Curve]) -> Interval | None:
    """Of the methods that align, as one that does not has nothing to gain; None unless all were run."""
    if {curve.method for curve in found} != set(METHODS) or not shared_seeds(found):
        return None
    kept = aligned_methods(found)
    return tuning([curve for curve in found if curve.method in kept], "BNF")


def _least(several: Sequence[Claim], test: str) -> Claim:
    """That all of them hold: of what was found, of lower and of upper ends the least. Each at 95 %, this is no less
    certain whatever their number (an intersection-union test)."""
    found, there = None, [one.found for one in several if one.found is not None]
    if len(there) == len(several):
        found = Interval(*(min(getattr(one, end) for one in there) for end in ("value", "low", "high")))
    return Claim("2. lowest tax at equal alignment", test, found, 0.0, "10")


def contrast(found: Sequence[Curve], measure: str, of: str, against: str, seeds: Sequence[int]) -> Interval | None:
    """What `of` keeps more than one other method of the measure at the level of both, by these seeds alone; None where
    one is missing, or one of both hardly aligns."""
    both = [curve for curve in found if curve.method in (of, against) and curve.seed in seeds]
    if {curve.method for curve in both} != {of, against} or shared_seeds(both) != list(seeds):
        return None
    if len(aligned_methods(both)) < 2:
        return None
    frame = at_level(both, measure, [of, against])
    besides = level_errors(both, measure, of, [of, against])[against]
    paired = paired_difference(frame[of].to_numpy(), frame[against].to_numpy(), besides=besides)
    return Interval(paired.value, paired.low, paired.high)


def measured_variances(found: Sequence[Curve], of: str, measure: str) -> list[Components]:
    """What differences at matched alignment vary by between rows, between seeds, and else: for the power of the next
    stage. Empty with one seed."""
    methods = aligned_methods(found)
    return list(variances(at_level(found, measure, methods), of).values()) if of in methods else []
