"""What does not agree within the paper, or with the code that it was made with: each with a check that can be run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log, log10

import pandas as pd
import torch

from lightning_bnf.reproduction.case_studies import ways_to_pay
from lightning_bnf.reproduction.printed import table5
from lightning_bnf.reproduction.table2 import check, table2


@dataclass(frozen=True)
class Erratum:
    """where: in the paper; printed: what stands there; found: what it should be; check: what shows it, computed."""

    where: str
    printed: str
    found: str
    check: Callable[[], str]


def errata_table() -> pd.DataFrame:
    """All of them, with the outcome of each check."""
    lines = [{"where": one.where, "printed": one.printed, "is": one.found, "check": one.check()} for one in ERRATA]
    return pd.DataFrame(lines).set_index("where")


def _gap() -> str:
    return f"ln(0.8 / 0.05) = {log(0.8 / 0.05):.2f}, log10 = {log10(0.8 / 0.05):.2f}"


def _simpo_factor() -> str:
    (line,) = (line for line in table2() if line.method == "SimPO")
    bare = replace(line, scale=lambda side: torch.ones_like(side.logps))
    worst = [float(check([one]).loc["SimPO", "largest difference"]) for one in (bare, line)]
    return f"largest difference from the gradient: {worst[0]:.2f} as printed, {worst[1]:.0e} with beta / |y|"


def _sign() -> str:
    """The listing's value for one preferred token, of which policy and reference think alike: + log pi."""
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    listed = logits.log_softmax(-1)[0]  # target 1, so nothing of the other tokens is left
    (gradient,) = torch.autograd.grad(listed, logits)
    moved = -gradient[0].item()
    return f"a step down its gradient moves a preferred token's logit by {moved:+.2f}, down Eq. 4's by {-moved:+.2f}"


def _units() -> str:
    table = table5()
    ratios = [table[f"{model}_wildbench"] / table[f"{model}_arenahard"] for model in ("llama3", "mistral")]
    ratio = pd.concat(ratios)
    return f"Wild-Bench / Arena-Hard is {ratio.min():.1f} to {ratio.max():.1f}, about the characters of a token"


def _coins() -> str:
    ways = list(ways_to_pay(100, 19))
    (few,) = (way for way in ways if way[50] == way[25] == 0 and way[1] == 5)
    return f"{len(ways)} ways, one of them {few[1]} pennies, {few[5]} nickels and {few[10]} dimes"


ERRATA = (
    Erratum("Section 2.3", "0.8 against 0.05 is a gap of 1.2", "2.77 nats; 1.2 is log10", _gap),
    Erratum("Table 2, SimPO", "C without a factor", "beta / |y| belongs before it, of each side", _simpo_factor),
    Erratum("Appendix B, return", "the sum of label / |y| f log pi", "its negative, as in Eq. 4", _sign),
    Erratum("Table 9, BNF and SimPO", "no 19 coins make a dollar", "many do", _coins),
    Erratum("Table 5", "one unit", "Wild-Bench in characters, Arena-Hard in tokens", _units),
    Erratum(
        "Appendix B, gather",
        "logits at t with the token at t, prompt and padding included",
        "logits at t - 1, of the answer's tokens alone",
        lambda: "read off the listing: it neither shifts nor masks",
    ),
    Erratum(
        "Table 4, Wild-Bench score",
        "score",
        "Wild-Bench's weighted task macro",
        lambda: "not checked here: it needs Wild-Bench's judgements",
    ),
)
