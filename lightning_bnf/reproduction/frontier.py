"""The frontier: what methods pay in other skills at equal alignment, over learning rates and moments of each run.

Takes results of `reproduce frontier`, whose runs were measured at shares of their steps and at the end. Alignment is
the share of test prompts of trained families whose greedy answer passes its verifier. What is taxed are multiple choice
and real text, by likelihood, and families that are kept out of training. A method's curve at a rate goes from the base
through these moments, averaged over seeds. What a method keeps at matched alignment is what all of them say of the
level of alignment at which methods are compared: no rate and no moment is picked (`matching`).

    level           three quarters of the way from the base to the lowest over methods of the highest alignment that
                    their curves come to
    left out        methods whose gain in alignment is under half of the median method's, which would set the level
                    alone; of two methods one with under a third of the other's
    what counts     of a curve the base and the moments up to the first that comes to the level, or to its highest where
                    none does: what is lost by going on from there is no price of the alignment
    what is kept    the local linear fit at the level, row by row on alignment, of all that counts of a method
    runs            of a method and seed all rates, or none
    seeds           each is left out once, and the fit made again (jackknife, about what all give)
    test            paired by row and seed, t with the degrees of freedom that there are, Holm's correction over the
                    methods, for each measure by itself; to its error is added how much the difference moves when the
                    prompts that alignment is measured on are drawn anew
    verdicts        the exploring seeds say for two methods what the level is and what counts, the confirming seeds
                    what is kept there

When this was settled: multiple choice and real text as measures, and the first rules, when the base and BNF with one
seed had been run; that kept-out families' passes are a tax as well, after BNF's highest rate had lost many of them; the
three quarters and the fit, when all methods had been run with one seed and four with a second; what tuning gains
(`tuning.tuning`), when a second seed was whole; all of it before a confirming seed was run. Until then the level was
the whole of the common gain, and what is kept was read off each curve where it first came there, as a mean over the
rates that do. Which rates do is then a matter of chance, as is the best moment of the method that sets the level: in
simulated experiments with runs like these (as in `matched_coverage`) 95 % intervals of it, at three quarters too, held
the truth in 0.82 to 0.85 of cases at worst, more seeds did not mend that, and they were several times as wide. The
table of all methods has one level, which is read off the same runs as what is kept there, and a contrast of two methods
its own, so their numbers differ; a method that hardly aligns is left out of the table, but may be one of two.

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
    Curve,
    aligned,
    averaged,
    complete,
    needed_seeds,
    shared_seeds,
)
from lightning_bnf.reproduction.matching import Match, counted, fitted, highest, match, weights
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
"""What the confirming seeds are for (`reproduce frontier --scale confirm`): method, against, how many seeds, of which
`FIRST_SEED` is the first."""
FIRST_SEED = 11
EXPLORED = (1, 2, 3)
"""The seeds of `reproduce frontier --scale small`, which say where the confirming ones compare."""


def left_out(found: Sequence[Curve]) -> list[str]:
    """Of averaged curves: the methods that are not compared. Raises `Refusal` where all are."""
    start, best = aligned(found[0].moments[0]), highest(found)
    half = float(np.median([value - start for value in best.values()])) / 2
    out = [method for method, value in best.items() if value <= start or value - start < half]
    if len(out) == len(best):
        raise Refusal("records must hold a method that gains in alignment, got none")
    return out


def at_level(found: Sequence[Curve], measure: str, methods: Sequence[str], at: Match) -> pd.DataFrame:
    """The measure where these methods are compared: a line for each row, a column (method, seed) for each method and
    shared seed, whose mean over seeds is what the averaged curves of all give.

    With k > 1 seeds a column is that, and k - 1 times what the mean over all sets without a seed has more than the set
    without this one: the jackknife's pseudo-value, with its mean put where all seeds are.
    """
    mine = [curve for curve in found if curve.method in methods]
    seeds = needed_seeds(mine)
    whole, k = fitted(averaged(mine, seeds), measure, methods, at), len(seeds)
    without = dict.fromkeys(seeds, whole)
    for seed in seeds if k > 1 else ():
        without[seed] = fitted(averaged(mine, [one for one in seeds if one != seed]), measure, methods, at)
    columns: dict[tuple[str, int], np.ndarray] = {}
    for method in methods:
        mean = np.mean([one[method] for one in without.values()], axis=0)
        columns |= {(method, seed): whole[method] + (k - 1) * (mean - without[seed][method]) for seed in seeds}
    return pd.DataFrame(columns).rename_axis(columns=["method", "seed"])


def level_errors(
    found: Sequence[Curve], measure: str, of: str, methods: Sequence[str], at: Match, draws: int = 500
) -> dict[str, float]:
    """How far what `of` has more of the measure than each other method where they are compared moves when the prompts
    that alignment is measured on are drawn anew (bootstrap): method -> standard deviation."""
    mine = [curve for curve in found if curve.method in methods]
    kept = averaged(mine, needed_seeds(mine))
    rows = len(kept[0].moments[0].values[ALIGNMENT])
    drawn = np.random.default_rng(0).multinomial(rows, [1 / rows] * rows, draws) / rows
    means = {}
    for method in methods:
        shares = drawn @ counted(kept, method, ALIGNMENT, at).T
        means[method] = weights(shares, at.gain) @ counted(kept, method, measure, at).mean(axis=1)
    return {method: float((means[of] - means[method]).std(ddof=1)) for method in methods if method != of}


def tax(found: Sequence[Curve], of: str, measures: Sequence[str] = TAXES) -> pd.DataFrame:
    """What `of` keeps more than each other method at matched alignment: the table of `contrasts.contrasts`, corrected
    over the methods within each measure.

    Raises `Refusal` where `of` itself is left out.
    """
    methods = aligned_methods(found)
    if of not in methods:
        raise Refusal(f"of must be a method that gains in alignment, got {of}")
    at = matched(found, methods)
    return pd.concat(
        [
            contrasts({name: at_level(found, name, methods, at)}, of, level_errors(found, name, of, methods, at))
            for name in measures
        ],
        ignore_index=True,
    )


def matched(found: Sequence[Curve], methods: Sequence[str]) -> Match:
    """Where these methods are compared, by the seeds that they share."""
    mine = [curve for curve in found if curve.method in methods]
    return match(averaged(mine, needed_seeds(mine)))


def aligned_methods(found: Sequence[Curve]) -> list[str]:
    """All but those that hardly gain, see `left_out`, and those that gain nothing once a seed is left out. Raises
    `Refusal` where no seed is shared by all."""
    seeds = needed_seeds(found)
    out = left_out(averaged(found, seeds))
    for seed in seeds if len(seeds) > 1 else ():
        some = averaged(found, [one for one in seeds if one != seed])
        start = aligned(some[0].moments[0])
        gains = {curve.method for curve in some if max(map(aligned, curve.moments)) > start}
        out += [curve.method for curve in some if curve.method not in gains]
    return [method for method in dict.fromkeys(curve.method for curve in found) if method not in out]


def standing(found: Sequence[Curve]) -> pd.DataFrame:
    """By method, the best first: the highest alignment that its curves come to, what that is above the base, and
    whether it is compared at matched alignment (`aligned_methods`)."""
    kept, means = aligned_methods(found), averaged(found, needed_seeds(found))
    start, best = aligned(means[0].moments[0]), pd.Series(highest(means))
    compared = ["yes" if method in kept else "left out" for method in best.index]
    table = pd.DataFrame({"highest alignment": best, "gain": best - start, "compared": compared})
    return table.sort_values("highest alignment", ascending=False, kind="stable")


def verdicts(found: Sequence[Curve], confirming: Sequence[Curve]) -> list[Claim]:
    """The stated contrasts as claims, by the confirming seeds alone: that the first keeps more of each measure of
    `TAXES` at matched alignment, where `found` says to compare; for each measure that it does so in all of them; and
    that it gains less by tuning its rate, where `found` says which rate is the best. Nothing is decided where seeds
    that were stated are missing, or one of both hardly aligns."""
    found, confirming = complete(found, METHODS), complete(confirming, METHODS)
    explored = {against: _explored(found, [of, against]) for of, against, _ in CONTRASTS}
    lines = []
    for measure in TAXES:
        what, several, upper = f"{LABELS[measure]} at matched alignment", [], []
        for of, against, count in CONTRASTS:
            seeds, one, wider = range(FIRST_SEED, FIRST_SEED + count), None, None
            if mine := explored[against]:
                at = matched(mine, [of, against])
                one = contrast(confirming, measure, of, against, seeds, at)
                wider = contrast(confirming, measure, of, against, seeds, at, 1 - 0.05 / len(CONTRASTS))
            test = f"{what}, {of} - {against}, {count} seeds"
            several.append(Claim(f"2. lower tax than {against} at equal alignment", test, one, 0.0, "10"))
            upper.append(wider)
        names = ", ".join(against for _, against, _ in CONTRASTS)
        lines += [*several, _least(several, upper, f"{what}, BNF - each of {names}: the least")]
    for of, against, count in CONTRASTS:
        seeds, one, mine = range(FIRST_SEED, FIRST_SEED + count), None, explored[against]
        if mine:
            one = tuning(mine, confirming, of, against, seeds)
        test = f"alignment gained by tuning the learning rate, {of} - {against}, {count} seeds"
        lines.append(Claim(f"3. gains less by tuning its rate than {against}", test, one, 0.0, "10", above=False))
    return lines


def _explored(found: Sequence[Curve], both: Sequence[str]) -> list[Curve]:
    """Two methods' curves with the exploring seeds; none where one is missing or hardly aligns."""
    mine = [curve for curve in found if curve.method in both and curve.seed in EXPLORED]
    if {curve.method for curve in mine} != set(both) or shared_seeds(mine) != list(EXPLORED):
        return []
    try:
        return mine if len(aligned_methods(mine)) == len(both) else []
    except Refusal:  # none of them gains anything
        return []


def _least(several: Sequence[Claim], upper: Sequence[Interval | None], test: str) -> Claim:
    """That all of them hold: of what was found, of lower and of upper ends the least. That each holds at 95 % is no
    less certain whatever their number (an intersection-union test); one that fails is enough for it to fail, so their
    upper ends are of `upper`, intervals that are wider by Bonferroni's correction."""
    found, there = None, [one.found for one in several if one.found is not None]
    ends = [one.high for one in upper if one is not None]
    if len(there) == len(several) or any(end < 0 for end in ends):
        found = Interval(min(one.value for one in there), min(one.low for one in there), min(ends))
    return Claim("2. lowest tax at equal alignment", test, found, 0.0, "10")


def contrast(
    found: Sequence[Curve],
    measure: str,
    of: str,
    against: str,
    seeds: Sequence[int],
    at: Match,
    level: float = 0.95,
) -> Interval | None:
    """What `of` keeps more than one other method of the measure where they are compared, by these seeds alone. None
    where one is missing, or one of both gains less than two thirds of what it is to have gained."""
    both = [curve for curve in found if curve.method in (of, against) and curve.seed in seeds]
    if {curve.method for curve in both} != {of, against} or shared_seeds(both) != list(seeds):
        return None
    means = averaged(both, seeds)
    wanted = aligned(means[0].moments[0]) + at.gain * 2 / 3
    if any(counted(means, method, ALIGNMENT, at).mean(axis=1).max() < wanted for method in (of, against)):
        return None
    frame = at_level(both, measure, [of, against], at)
    besides = level_errors(both, measure, of, [of, against], at)[against]
    paired = paired_difference(frame[of].to_numpy(), frame[against].to_numpy(), level, besides)
    return Interval(paired.value, paired.low, paired.high)


def measured_variances(found: Sequence[Curve], of: str, measure: str) -> list[Components]:
    """What differences at matched alignment vary by between rows, between seeds, and else: for the power of the next
    stage. Empty with one seed."""
    methods = aligned_methods(found)
    if of not in methods:
        return []
    return list(variances(at_level(found, measure, methods, matched(found, methods)), of).values())
