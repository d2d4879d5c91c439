"""The frontier: what methods pay in other skills at equal alignment, over learning rates and moments of each run.

Takes results of `reproduce frontier`, whose runs were measured at shares of their steps and at the end. Alignment is
the share of test prompts of trained families whose greedy answer passes its verifier. What is taxed are multiple choice
and real text, by likelihood, and families that are kept out of training. A method's curve at a rate goes from the base
through these moments, averaged over seeds. The tax at matched alignment is read off where a curve first comes to a
level of alignment, row by row between the two moments around it, and is the mean over the rates whose curves come
there: no rate and no moment is picked. The measures were chosen before any of these runs was made; the rules below
were written down when the base and BNF with one seed had been run, before a result of another method was looked at.

    level           the lowest over methods of the highest alignment that their curves come to
    left out        methods whose gain in alignment is under half of the median method's: they would set the level alone
    runs            of a method and seed all rates, or none
    seeds           each is left out once, and the level and the crossings are found again (jackknife, about what all
                    give); the intervals are too wide rather than too narrow, as crossings jump
    test            paired by row and seed, t with the degrees of freedom that there are, Holm's correction over the
                    methods, for each measure by itself; to its error is added how much the difference moves when the
                    prompts that alignment is measured on are drawn anew

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
"""What the confirming seeds (11 and on, `reproduce frontier --scale confirm`) are for: method, against, seeds."""


def matched_level(found: Sequence[Curve]) -> tuple[float, list[str]]:
    """Of averaged curves: the level of alignment at which methods are compared, and the methods that are left out."""
    start = aligned(found[0].moments[0])
    best: dict[str, float] = {}
    for curve in found:
        highest = max(aligned(one) for one in curve.moments)
        best[curve.method] = max(best.get(curve.method, start), highest)
    half = float(np.median([value - start for value in best.values()])) / 2
    kept = [method for method, value in best.items() if value > start and value - start >= half]
    if not kept:
        raise Refusal("records must hold a method that gains in alignment, got none")
    return min(best[method] for method in kept), [method for method in best if method not in kept]


def at_level(found: Sequence[Curve], measure: str, methods: Sequence[str]) -> pd.DataFrame:
    """The measure at the level of alignment that these methods come to: a line for each row, a column (method, seed)
    for each method and shared seed, whose mean over seeds is what the averaged curves of all have at their level.

    With k > 1 seeds a column is that, and k - 1 times what the mean over all sets without a seed has more than the set
    without this one (the level found again): the jackknife's pseudo-value, with its mean put where all seeds are, as
    crossings jump and its own would move by k - 1 times the jump. Raises `Refusal` where a method gains nothing.
    """
    mine = [curve for curve in found if curve.method in methods]
    seeds = needed_seeds(mine)
    whole, k = _crossings(averaged(mine, seeds), measure, methods), len(seeds)
    without = {
        seed: _crossings(averaged(mine, [one for one in seeds if one != seed]), measure, methods) if k > 1 else whole
        for seed in seeds
    }
    columns: dict[tuple[str, int], np.ndarray] = {}
    for method in methods:
        mean = np.mean([one[method] for one in without.values()], axis=0)
        columns |= {(method, seed): whole[method] + (k - 1) * (mean - without[seed][method]) for seed in seeds}
    return pd.DataFrame(columns).rename_axis(columns=["method", "seed"])


def _crossings(found: Sequence[Curve], measure: str, methods: Sequence[str]) -> dict[str, np.ndarray]:
    """Of averaged curves: method -> the measure's rows at the level all come to, the mean over the rates that do."""
    best = {
        method: max(aligned(one) for curve in found if curve.method == method for one in curve.moments)
        for method in methods
    }
    level, start = min(best.values()), aligned(found[0].moments[0])
    if level <= start:
        least = min(best, key=best.__getitem__)
        raise Refusal(f"methods must gain in alignment, got {least}, with {level:.3f} at most, {start:.3f} of the base")
    rows = {}
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
    start, highest = aligned(means[0].moments[0]), pd.Series(dtype=float)
    for curve in means:
        highest[curve.method] = max(highest.get(curve.method, start), *map(aligned, curve.moments))
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
    level = np.min(list(best.values()), axis=0)
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
    the confirming seeds alone; and that BNF needs less tuning, by `found`. Nothing is decided where there are fewer
    seeds than were stated, or one of both hardly aligns."""
    found, confirming = complete(found, METHODS), complete(confirming, METHODS)
    lines = []
    for measure in TAXES:
        for of, against, seeds in CONTRASTS:
            test = f"{LABELS[measure]} at matched alignment, {of} - {against}, {seeds} seeds"
            contrast = _contrast(confirming, measure, of, against, seeds)
            lines.append(Claim("2. lowest tax at equal alignment", test, contrast, 0.0, "10"))
    test = "alignment lost by an untuned rate, BNF - the others' mean"
    return [*lines, Claim("3. no tuning of its own", test, tuning(found, "BNF"), 0.0, "10", above=False)]


def _contrast(found: Sequence[Curve], measure: str, of: str, against: str, seeds: int) -> Interval | None:
    both = [curve for curve in found if curve.method in (of, against)]
    if {curve.method for curve in both} != {of, against} or len(shared_seeds(both)) < seeds:
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
