"""The BNF paper's case studies (Appendix D, Tables 8 and 9): three questions that have an answer, and those printed.

The paper shows whole texts of Gemma-2-9B-it, before and after training; here is what each comes to, and what is right.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

import pandas as pd

MODELS = ("Base", "BNF", "DPO", "SimPO")
COINS = (50, 25, 10, 5, 1)
"""Cents: half-dollar, quarter, dime, nickel, penny."""


@dataclass(frozen=True)
class CaseStudy:
    """table: the paper's; question: in short; printed: what each of `MODELS` comes to; right: computed, in words;
    agree: which of the printed answers are right."""

    table: str
    question: str
    printed: tuple[str, str, str, str]
    right: Callable[[], str]
    agree: tuple[bool, bool, bool, bool]


def ways_to_pay(cents: int, coins: int, kinds: tuple[int, ...] = COINS) -> Iterator[dict[int, int]]:
    """All ways to pay so many cents in so many coins: kind -> how many of it."""
    kind, *others = kinds
    if not others:
        if kind * coins == cents:
            yield {kind: coins}
        return
    for count in range(min(cents // kind, coins) + 1):
        for rest in ways_to_pay(cents - count * kind, coins - count, tuple(others)):
            yield {kind: count, **rest}


def panels(miles: float, kwh_a_mile: float, kilowatts: float, hours: float) -> int:
    """Solar panels that make as much energy in a day as a car takes."""
    return ceil(round(miles * kwh_a_mile / (kilowatts * hours), 9))


def inference_gigabytes(sequences: int, tokens: int, parameters: float, layers: int, width: int) -> float:
    """Weights, and keys and values of all tokens, with two bytes a number."""
    return (2 * parameters + sequences * tokens * 2 * 2 * layers * width) / 1e9


def case_studies() -> pd.DataFrame:
    """A line for each question: the paper's table, what is right, what each model's printed answer comes to (a check
    mark where that is right)."""
    lines = []
    for one in CASES:
        told = (f"{said} \N{CHECK MARK}" if good else said for said, good in zip(one.printed, one.agree))
        lines.append({"table": one.table, "question": one.question, "right": one.right(), **dict(zip(MODELS, told))})
    return pd.DataFrame(lines).set_index("question")


def _coins() -> str:
    found = list(ways_to_pay(100, 19))
    return f"{len(found)} ways, such as {_listed(max(found, key=lambda way: sum(map(bool, way.values()))))}"


def _listed(way: dict[int, int]) -> str:
    return " + ".join(f"{count} x {kind}" for kind, count in way.items() if count)


def _memory() -> str:
    one, fifty = (inference_gigabytes(sequences, 500, 7e9, 32, 4096) for sequences in (1, 50))
    return f"about {fifty:.0f} GB: {one:.1f} GB for one sequence, the weights once (keys and values as in Llama-2-7B)"


CASES = (
    CaseStudy(
        "8",
        "VRAM of 50 sequences, where one takes 14 GB (7B, fp16, 500 tokens)",
        ("28.0 GB, by 4 bytes a parameter", "87.6 GB", "cut off in print", "98 GB"),
        _memory,
        (False, False, False, False),
    ),
    CaseStudy(
        "9",
        "a dollar in 19 coins",
        ("19 coins of 105 cents", "impossible", "19 coins of 165 cents", "impossible"),
        _coins,
        (False, False, False, False),
    ),
    CaseStudy(
        "9",
        "400 W panels for 40 miles a day (4 hours of sun, 0.3 kWh a mile)",
        ("8", "8", "8", "8"),
        lambda: str(panels(40, 0.3, 0.4, 4)),
        (True, True, True, True),
    ),
)
