"""What a model does, row by row: choices passed, pairs ranked, prose kept, distance gone, answers that pass.

    choices          the right option is the likeliest (lm-eval's acc or acc_norm), by benchmark and of all
    choices_ranked   the share of wrong options that the right one is likelier than (chance: 0.5)
    pairs_ranked     the chosen answer is likelier than the rejected one, by mean token log-prob (a tie counts half)
    pairs_margin     by how much (nats a token)
    pairs_won        log pi/ref of the chosen answer is above the rejected one's, summed: what DPO trains
    prose            log-prob of real text (nats a token)
    kl_base          KL(base || policy): log base - log policy of the base's samples (nats a sample)
    kl_own           KL(policy || base): log policy - log base of the policy's samples (nats a sample)
    passes           the greedy answer passes its prompt's verifier

Pairs and prompts of families that are kept out of training are measured apart (`..._kept_out`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.evaluation.likelihood.material import Material
from lightning_bnf.evaluation.statistics.intervals import paired_bootstrap
from lightning_bnf.results.markdown import markdown_table
from lightning_bnf.runtime.fingerprints import content_hash

RESAMPLES = 2000
DISTANCES = ("pairs_won", "kl_base", "kl_own")
"""Measures that are of policy and base together: the base has none of its own."""


@dataclass(frozen=True)
class Sums:
    """Summed log-probs of the material's completions, row by row: (completions,) each; and whether each verified prompt
    was answered rightly: (prompts,), empty where none was."""

    questions: Sequence[np.ndarray] = ()
    pairs: Sequence[np.ndarray] = ()
    prose: Sequence[np.ndarray] = ()
    base_samples: Sequence[np.ndarray] = ()
    own_samples: Sequence[np.ndarray] = ()
    passes: Sequence[bool] = ()


@dataclass(frozen=True)
class Line:
    """One measure over n rows with its 95 % interval (bootstrap over rows); with a base, what it has, and the paired
    difference with its own."""

    measure: str
    n: int
    value: float
    low: float
    high: float
    base: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


def values(of: Material, sums: Sums, base: Sums | None = None) -> dict[str, np.ndarray]:
    """Measure -> (rows,). Distances are there where the base's sums are."""
    found: dict[str, np.ndarray] = {}
    if of.questions:
        right = np.array([float(one.passed(logps)) for one, logps in zip(of.questions, sums.questions, strict=True)])
        tasks = [one.task for one in of.questions]
        for task in sorted(set(tasks)):
            found[task] = right[[one == task for one in tasks]]
        found["choices"] = right
        found["choices_ranked"] = np.array([one.ranked(logps) for one, logps in zip(of.questions, sums.questions)])
    for suffix, kept_out in (("", False), ("_kept_out", True)):
        passed = [float(one) for one, prompt in zip(sums.passes, of.verified) if prompt.kept_out == kept_out]
        if passed:
            found[f"passes{suffix}"] = np.array(passed)
        places = [i for i, row in enumerate(of.pairs) if row.kept_out == kept_out]
        if places:
            means = np.array([sums.pairs[i] / _lengths(of.pairs[i]) for i in places])
            margin = means[:, 0] - means[:, 1]
            found[f"pairs_ranked{suffix}"] = (np.sign(margin) + 1) / 2
            found[f"pairs_margin{suffix}"] = margin
            if base is not None:
                ratios = np.array([sums.pairs[i] - base.pairs[i] for i in places])
                found[f"pairs_won{suffix}"] = (np.sign(ratios[:, 0] - ratios[:, 1]) + 1) / 2
    if of.prose:
        found["prose"] = np.array(
            [float((logps / _lengths(row))[0]) for row, logps in zip(of.prose, sums.prose, strict=True)]
        )
    if base is not None:
        for name, sign in (("base_samples", 1), ("own_samples", -1)):
            mine, its = getattr(sums, name), getattr(base, name)
            if mine:
                distance = [sign * float(b[0] - p[0]) for p, b in zip(mine, its, strict=True)]
                found[f"kl_{name.removesuffix('_samples')}"] = np.array(distance)
    return found


def _lengths(row: TokenizedRow) -> np.ndarray:
    return np.array([sum(one.completion_mask) for one in row.completions], dtype=float)


def row_fingerprints(of: Material) -> dict[str, str]:
    """What tells apart which rows were measured: values of two policies are paired where these are equal."""
    parts = {
        "questions": [one.row for one in of.questions],
        "pairs": of.pairs,
        "prose": of.prose,
        "prompts": of.prompts,
    }
    found = {
        name: content_hash([[row.prompt_ids, [one.ids for one in row.completions]] for row in rows])
        for name, rows in parts.items()
        if rows
    }
    if of.verified:
        asked = [[one.prompt_ids, one.verifier, one.max_new_tokens] for one in of.verified]
        found["verified"] = content_hash(asked)
    return found


def lines(policy: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray] | None = None) -> list[Line]:
    """A line for each measure."""
    found = []
    for name, own in policy.items():
        low, high = paired_bootstrap(own, resamples=RESAMPLES)
        line = Line(name, len(own), float(own.mean()), low, high)
        if base is not None and name in base:
            change = own - base[name]
            below, above = paired_bootstrap(change, resamples=RESAMPLES)
            line = Line(
                *(line.measure, line.n, line.value, low, high),
                float(base[name].mean()),
                float(change.mean()),
                below,
                above,
            )
        found.append(line)
    return found


def table(measured: Sequence[Line]) -> str:
    """As Markdown: with a base, its value and the difference; the interval is the difference's where there is one."""
    rows = [
        (
            one.measure,
            one.n,
            _shown(one.value, one.low, one.high),
            "-" if one.base is None else f"{one.base:.3f}",
            "-" if one.difference is None else _shown(one.difference, one.difference_low, one.difference_high, "+"),
        )
        for one in measured
    ]
    return markdown_table(("measure", "n", "policy", "base", "difference"), *rows, padded=True)


def _shown(value: float, low: float | None, high: float | None, sign: str = "") -> str:
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
