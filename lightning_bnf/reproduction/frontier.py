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
    what is kept    the local linear fit at the level, row by row on alignment, of all moments of all rates of a method
    runs            of a method and seed all rates, or none
    seeds           each is left out once, and all of it made again, the level too (jackknife, about what all give)
    test            paired by row and seed, t with a degree of freedom less than seeds; to its error is added how much
                    the difference moves when the prompts that alignment is measured on are drawn anew; of all methods
                    Holm's correction, for each measure by itself
    verdicts        two methods at their own level, by the confirming seeds alone; 98.3 % intervals (Bonferroni's
                    correction over the three methods)

When this was settled: multiple choice and real text as measures, and the first rules, when the base and BNF with one
seed had been run; that kept-out families' passes are a tax as well, after BNF's highest rate had lost many of them; the
three quarters and the fit, when all methods had been run with one seed and four with a second; that all moments count,
the degrees of freedom and the test of tuning (`tuning.untuned`), when four methods had three seeds; all of it before a
confirming seed was run. Until then a curve counted up to where it first came to the level, first as it was read off
there, then in the fit; both with moments and a level that the exploring seeds had said. Which moments count was then a
matter of chance: in simulated experiments with runs like these (as in `matched_coverage`) two methods that are the same
had a verdict in real text in 19 to 29 of 100 (with the code of then), because of one other moments counted than of the
other, and the more seeds the surer it was. All moments have in them what a method loses by going on beyond the level,
where it is still or again near it in alignment. Of what two exploring seeds said this changed most: BNF lost 0.011 nats
of real text and 0.027 of kept-out passes more against SimPO than before, and 0.007 nats less against fine-tuning. The
table of all methods has one level, and a contrast of two methods its own, so their numbers differ; a method that hardly
aligns is left out of the table, but may be one of two.

`tuning.at_best_rate` gives the same comparison of each method at the rate that it aligns best with. It decides nothing;
it was added when DPO with one seed had been looked at too, because a mean over the rates that come to the level, which
was the rule of then, left out those at which a method breaks before it.

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
from lightning_bnf.evaluation.statistics.paired import Components, Difference, paired_difference
from lightning_bnf.reproduction.claims import Claim, Undecided, decided
from lightning_bnf.reproduction.contrasts import contrasts, variances
from lightning_bnf.reproduction.curves import (
    ALIGNMENT,
    Curve,
    aligned,
    averaged,
    complete,
    needed_seeds,
    only,
    shared_seeds,
)
from lightning_bnf.reproduction.matching import cells, fitted, highest, shared_gain, weights, without
from lightning_bnf.reproduction.tuning import untuned
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
CAREFUL = 1 - 0.05 / 3
"""The level of intervals of three contrasts: all hold what they are about with 95 % (Bonferroni)."""
MOST_WITHOUT = 0.025
"""The share of draws of prompts in which one of the methods may gain nothing."""


def left_out(found: Sequence[Curve]) -> list[str]:
    """Of averaged curves: the methods that are not compared. Raises `Refusal` where all are."""
    start, best = aligned(found[0].moments[0]), highest(found)
    half = float(np.median([value - start for value in best.values()])) / 2
    out = [method for method, value in best.items() if value <= start or value - start < half]
    if len(out) == len(best):
        raise Refusal("records must hold a method that gains in alignment, got none")
    return out


def at_level(found: Sequence[Curve], measure: str, methods: Sequence[str]) -> pd.DataFrame:
    """The measure where these methods are compared: a line for each row, a column (method, seed) for each method and
    shared seed, whose mean over seeds is what the averaged curves of all give.

    With k > 1 seeds a column is that, and k - 1 times what the mean over all sets without a seed has more than the set
    without this one: the jackknife's pseudo-value, with its mean put where all seeds are.
    """
    runs, seeds = cells(found, methods, [measure]), needed_seeds([one for one in found if one.method in methods])
    whole, k = fitted(runs, measure), len(seeds)
    some = [fitted(without(runs, i), measure) for i in range(k)] if k > 1 else [whole]
    columns: dict[tuple[str, int], np.ndarray] = {}
    for method in methods:
        mean = np.mean([one[method] for one in some], axis=0)
        columns |= {(method, seed): whole[method] + (k - 1) * (mean - one[method]) for seed, one in zip(seeds, some)}
    return pd.DataFrame(columns).rename_axis(columns=["method", "seed"])


def level_errors(
    found: Sequence[Curve], measure: str, of: str, methods: Sequence[str], draws: int = 500
) -> dict[str, float]:
    """How far what `of` has more of the measure than each other method where they are compared moves when the prompts
    that alignment is measured on are drawn anew (bootstrap): method -> standard deviation. Infinite where in more than
    `MOST_WITHOUT` of the draws one of the methods gains nothing."""
    runs = cells(found, methods, [measure])
    passes = {method: own[ALIGNMENT].mean(axis=0) for method, own in runs.items()}  # (moments, prompts)
    prompts = passes[of].shape[1]
    drawn = np.random.default_rng(0).multinomial(prompts, [1 / prompts] * prompts, draws) / prompts
    shares = {method: drawn @ own.T for method, own in passes.items()}
    gain = shared_gain(shares)
    with np.errstate(invalid="ignore"):  # of draws without a fit
        kept = {m: weights(shares[m], gain) @ runs[m][measure].mean(axis=(0, 2)) for m in methods}
    there = np.isfinite(list(kept.values())).all(axis=0)
    if there.mean() < 1 - MOST_WITHOUT:
        return dict.fromkeys((method for method in methods if method != of), float("inf"))
    return {method: float((kept[of] - kept[method])[there].std(ddof=1)) for method in methods if method != of}


def tax(found: Sequence[Curve], of: str, measures: Sequence[str] = TAXES) -> pd.DataFrame:
    """What `of` keeps more than each other method at matched alignment: the table of `contrasts.contrasts`, corrected
    over the methods within each measure.

    Raises `Refusal` where `of` itself is left out.
    """
    methods = aligned_methods(found)
    if of not in methods:
        raise Refusal(f"of must be a method that gains in alignment, got {of}")
    tables = [
        contrasts({name: at_level(found, name, methods)}, of, level_errors(found, name, of, methods), by_seeds=True)
        for name in measures
    ]
    return pd.concat(tables, ignore_index=True)


def aligned_methods(found: Sequence[Curve]) -> list[str]:
    """All but those that hardly gain, see `left_out`, and those that gain nothing once a seed is left out. Raises
    `Refusal` where no seed is shared by all."""
    seeds, found = needed_seeds(found), [only(curve, ALIGNMENT) for curve in found]
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


def verdicts(confirming: Sequence[Curve]) -> list[Claim]:
    """The stated contrasts as claims: that the first keeps more of each measure of `TAXES` at matched alignment; for
    each measure that it does so in all of them; and that an untuned rate keeps more of its gain. Nothing is decided
    where seeds that were stated are missing, or one of both hardly aligns."""
    confirming = complete(confirming, METHODS)
    stated = [(of, against, range(FIRST_SEED, FIRST_SEED + count)) for of, against, count in CONTRASTS]
    lines = []
    for measure in TAXES:
        what, several = f"{LABELS[measure]} at matched alignment over these rates", []
        for of, against, seeds in stated:
            one, why = decided(contrast, confirming, measure, of, against, seeds)
            claim, test = f"2. lower tax than {against} at equal alignment", f"{what}, {_pair(of, against, seeds)}"
            several.append(Claim(claim, test, _careful(one), 0.0, "10", why=why))
        names = ", ".join(against for _, against, _ in CONTRASTS)
        lines += [*several, _least(several, f"{what}, BNF - each of {names}: the least, {CAREFUL:.1%}")]
    for of, against, seeds in stated:
        found, why = decided(untuned, confirming, of, against, seeds)
        test = f"share of the tuned rate's gain in alignment, {_pair(of, against, seeds)}"
        claim = f"3. an untuned rate keeps more of the gain than {against}'s"
        lines.append(Claim(claim, test, _careful(found), 0.0, "10", why=why))
    return lines


def _careful(found: Difference | None) -> Interval | None:
    return None if found is None else found.interval(CAREFUL)


def _pair(of: str, against: str, seeds: Sequence[int]) -> str:
    return f"{of} - {against}, {len(seeds)} seeds, {CAREFUL:.1%}"


def _least(several: Sequence[Claim], test: str) -> Claim:
    """That all of them hold: of what was found, of lower and of upper ends the least. One that fails is enough for it
    to fail, whatever the others are."""
    found, there = None, [one.found for one in several if one.found is not None]
    if len(there) == len(several) or any(one.high < 0 for one in there):
        found = Interval(*(min(getattr(one, end) for one in there) for end in ("value", "low", "high")))
    why = ", ".join(dict.fromkeys(one.why for one in several if one.why))
    return Claim("2. lower tax than all three at equal alignment", test, found, 0.0, "10", why=why)


def contrast(found: Sequence[Curve], measure: str, of: str, against: str, seeds: Sequence[int]) -> Difference:
    """What `of` keeps more than one other method of the measure where they are compared, by these seeds alone. Raises
    `Undecided` where one is missing, or one of both hardly aligns."""
    both = [curve for curve in found if curve.method in (of, against) and curve.seed in seeds]
    if {curve.method for curve in both} != {of, against} or shared_seeds(both) != list(seeds):
        raise Undecided("not run yet")
    try:
        kept = aligned_methods(both)
    except Refusal:  # none of them gains anything
        kept = []
    if idle := [method for method in (of, against) if method not in kept]:
        raise Undecided(f"{' and '.join(idle)} hardly aligns")
    besides = level_errors(both, measure, of, [of, against])[against]
    if not np.isfinite(besides):
        raise Undecided("with other prompts one of both may not align")
    frame = at_level(both, measure, [of, against])
    return paired_difference(frame[of].to_numpy(), frame[against].to_numpy(), besides=besides, by_seeds=True)


def measured_variances(found: Sequence[Curve], of: str, measure: str) -> list[Components]:
    """What differences at matched alignment vary by between rows, between seeds, and else: for the power of the next
    stage. Empty with one seed."""
    methods = aligned_methods(found)
    return list(variances(at_level(found, measure, methods), of).values()) if of in methods else []
