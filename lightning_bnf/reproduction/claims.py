"""The paper's claims against what was measured here: each with its test, its interval, and the verdict that follows.

A verdict is computed, never written: a claim says that a number lies above a bound (or below it); it holds where the
whole interval does (of 95 %, where the test names no other), fails where none of it does, and is not decided otherwise.
Where nothing was measured that could decide, the reason stands there.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from lightning_bnf.evaluation.statistics.intervals import Interval, t_interval
from lightning_bnf.evaluation.statistics.paired import paired_difference
from lightning_bnf.reproduction.contrasts import paired
from lightning_bnf.reproduction.printed import ALIGNMENT, BASE_MODELS, REASONING, table4
from lightning_bnf.reproduction.scores import BASE, methods_of
from lightning_bnf.results.tables import displacement
from lightning_bnf.runtime.refusal import Refusal

HOLDS, FAILS, OPEN = "holds", "fails", "not decided"
CLAIMS = {
    "1": "aligns comparably to the best baseline",
    "2": "lowest tax at equal alignment",
    "3": "needs no tuning",
    "4": "does not collapse",
    "5": "pairs are not needed",
    "6": "costs what fine-tuning costs",
}
"""The paper's, by the numbers that tests of them have here."""
COMPARABLE = 0.05
"""Pass rates that differ by less count as comparable."""
Results = Sequence[Mapping[str, Any]]
Found = TypeVar("Found")


class Undecided(Exception):
    """Why a test has no interval, in a few words."""


def decided(test: Callable[..., Found], *arguments: Any) -> tuple[Found | None, str]:
    """What a test of these arguments gives, or None and why it gives nothing."""
    try:
        return test(*arguments), ""
    except Undecided as reason:
        return None, str(reason)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, how it was tested, and what came out.

    found: None where nothing was measured that could decide
    bound: the number that has to lie above it, or below it where `above` is false
    why: where nothing was found, the reason
    """

    claim: str
    test: str
    found: Interval | None
    bound: float
    notebook: str
    above: bool = True
    why: str = ""

    @property
    def verdict(self) -> str:
        """`HOLDS`, `FAILS` or `OPEN`."""
        if self.found is None:
            return OPEN
        low, high = (self.found.low, self.found.high) if self.above else (-self.found.high, -self.found.low)
        bound = self.bound if self.above else -self.bound
        return HOLDS if low > bound else FAILS if high < bound else OPEN


def brief(claims: Sequence[Claim]) -> list[Claim]:
    """The same, with one line instead of all tests of a claim that a notebook has and that gave nothing for one reason:
    those that have been run are not to be looked for among those that have not."""
    alike: dict[tuple[str, ...], list[Claim]] = {}
    for i, claim in enumerate(claims):
        number = claim.claim.partition(".")[0]
        own = () if claim.found is None and claim.why else (str(i),)
        alike.setdefault((number, claim.notebook, claim.why, *own), []).append(claim)
    found = []
    for (number, notebook, why, *_), several in alike.items():
        name, test = f"{number}. {CLAIMS[number]}", f"{len(several)} tests, which notebook {notebook} has one by one"
        found += several if len(several) == 1 else [Claim(name, test, None, 0.0, notebook, why=why)]
    return found


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """A line for each claim: test, verdict, interval, notebook."""
    lines = [
        {
            "claim": claim.claim,
            "test": claim.test
            if claim.found is None
            else f"{claim.test}: {'above' if claim.above else 'below'} {claim.bound:g}",
            "verdict": claim.verdict,
            "interval": f"- ({claim.why})" if claim.found is None else _shown(claim.found),
            "notebook": claim.notebook,
        }
        for claim in claims
    ]
    return pd.DataFrame(lines).set_index("claim")


def _shown(found: Interval) -> str:
    """With as many digits as show two of the interval's width, at least two behind the point."""
    width = found.high - found.low
    digits = max(2, 1 - math.floor(math.log10(width))) if 0 < width < math.inf else 2
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def claims(
    strict: Mapping[str, pd.DataFrame], fewer: Mapping[str, pd.DataFrame], collapse: Results, bench: Results
) -> list[Claim]:
    """The paper's claims, tested on stored results; the third, and the second at equal alignment, are
    `frontier.verdicts`.

    Args:
        strict: measures of the small Table 4 (`scores.by_prompt`), its answers verified strictly.
        fewer: the same of the small Table 6, with the methods 0% and 100%.
        collapse: results of the runs on near-duplicates.
        bench: rows that `bench` measured of steps (`results.tables.read_bench`).

    Raises `Refusal` where the results lack a method.
    """
    aligned, kept = strict["instructions"], _kept_out(strict)
    best = max((m for m in methods_of(aligned) if m not in ("BNF", BASE)), key=lambda m: aligned[m].to_numpy().mean())
    return [
        Claim(
            "1. aligns comparably to the best baseline",
            f"instructions, strict, BNF - {best} (the best of the others)",
            difference(aligned, "BNF", best),
            -COMPARABLE,
            "03",
        ),
        *(
            Claim(
                f"2. keeps more of kept-out families than {other}, at rates as they were picked",
                f"kept-out families, strict, BNF - {other}; not at equal alignment",
                difference(kept, "BNF", other),
                0.0,
                "03",
            )
            for other in ("DPO", "SimPO")
        ),
        *_collapse_claims(collapse),
        Claim(
            "5. pairs are not needed",
            "instructions, strict, no pairs - all pairs",
            difference(fewer["instructions"], "0%", "100%"),
            -COMPARABLE,
            "05",
        ),
        Claim(
            "6. costs what fine-tuning costs",
            "seconds of a step, BNF / fine-tuning, reference cached, one machine",
            cost(bench),
            1.1,
            "07",
            above=False,
        ),
    ]


def _collapse_claims(collapse: Results) -> list[Claim]:
    """What each loss does to log-probabilities on near-duplicates."""
    test = "log-prob of {} on near-duplicates (nats a token)"
    chosen = test.format("chosen answers")
    nll_pll, dpo = (change(collapse, method, "chosen") for method in ("nll_pll", "dpo_beta_0.1"))
    return [
        Claim("4. NLL + PLL collapses", chosen, nll_pll, -1.0, "02", above=False),
        Claim("4. DPO lowers chosen answers (beta 0.1)", chosen, dpo, 0.0, "02", above=False),
        Claim("4. BNF does not lower chosen answers", chosen, change(collapse, "bnf", "chosen"), -0.1, "02"),
        Claim(
            "4. BNF does not lower other text",
            test.format("other text"),
            change(collapse, "bnf", "held_out"),
            -0.1,
            "02",
        ),
    ]


def _kept_out(scores: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """All kept-out prompts' passes."""
    return pd.concat([scores["reasoning"], scores["other instructions"]])


def difference(frame: pd.DataFrame, one: str, other: str) -> Interval:
    """What one method passes more, paired by prompt and by seed."""
    for name in (one, other):
        if name not in methods_of(frame):
            raise Refusal(f"results must hold {name}, got {', '.join(methods_of(frame))}")
    found = paired_difference(*paired(frame, one, other))
    return Interval(found.value, found.low, found.high)


def change(records: Results, method: str, kind: str) -> Interval:
    """How far a mean log-prob was moved by the last step, over seeds (t)."""
    table = displacement(records)
    mine = table[(table["method"] == method) & (table["kind"] == kind)]
    if mine.empty:
        raise Refusal(f"results must hold {method} with {kind}, got {', '.join(sorted(set(table['method'])))}")
    return t_interval(mine.sort_values("step").groupby("seed")["change"].last().to_numpy())


def cost(rows: Results) -> Interval:
    """Seconds of a step of BNF by those of fine-tuning, over the turns that took turns (t, of logs)."""
    seconds = {row["variant"]: row["seconds"] for row in rows if row["suite"] == "step"}
    missing = {"BNF", "fine-tuning"} - seconds.keys()
    if missing:
        raise Refusal(f"rows must be of the suite step with BNF and fine-tuning, got none of {', '.join(missing)}")
    found = t_interval(np.log(np.array(seconds["BNF"]) / np.array(seconds["fine-tuning"])))
    return Interval(*(float(np.exp(value)) for value in (found.value, found.low, found.high)))


def printed_plane() -> pd.DataFrame:
    """The paper's own Table 4 as gain and tax: what each method has more than its base model, in points.

    Columns model, method, gain (mean over the three measures of alignment that are shares), tax (mean over the four of
    reasoning; below 0 something was lost).
    """
    measures = {"gain": [name for name in ALIGNMENT if not name.endswith("elo")], "tax": list(REASONING)}
    lines = []
    for model in BASE_MODELS:
        scores = table4(model).scores
        more = scores.drop(index="Base") - scores.loc["Base"]
        for method, line in more.iterrows():
            mean = {name: float(line[columns].mean()) for name, columns in measures.items()}
            lines.append({"model": model, "method": method, **mean})
    return pd.DataFrame(lines)
