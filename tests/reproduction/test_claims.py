"""Verdicts follow from intervals; the paper's own plane is the one that its Table 4 gives."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lightning_bnf.reproduction import scores as matrix
from lightning_bnf.reproduction.claims import (
    FAILS,
    HOLDS,
    OPEN,
    Claim,
    Interval,
    Undecided,
    brief,
    change,
    claims,
    claims_table,
    cost,
    decided,
    difference,
    printed_plane,
)
from lightning_bnf.reproduction.runs import read_results
from lightning_bnf.reproduction.strict import read_prompts, rescored
from lightning_bnf.results.plots import plot_printed_plane
from lightning_bnf.results.tables import read_bench

RESULTS = Path(__file__).parents[2] / "notebooks/results"


@pytest.mark.parametrize(
    ("found", "bound", "above", "verdict"),
    [
        ((0.1, 0.01, 0.2), 0.0, True, HOLDS),
        ((0.1, -0.01, 0.2), 0.0, True, OPEN),
        ((0.1, -0.01, 0.2), -0.05, True, HOLDS),
        ((-0.1, -0.2, -0.01), 0.0, True, FAILS),
        ((-0.1, -0.2, -0.01), 0.0, False, HOLDS),
        ((0.1, 0.05, 0.2), 0.0, False, FAILS),
        ((0.1, -0.05, 0.2), 0.0, False, OPEN),
        (None, 0.0, True, OPEN),
    ],
)
def test_a_verdict_is_where_the_whole_interval_lies(
    found: tuple[float, float, float] | None, bound: float, above: bool, verdict: str
) -> None:
    claim = Claim("c", "t", found and Interval(*found), bound, "03", above)
    assert claim.verdict == verdict
    assert claims_table([claim]).loc["c", "verdict"] == verdict


def test_what_was_not_decided_says_why() -> None:
    def test(a: int, b: int) -> int:
        if a > b:
            raise Undecided("not run yet")
        return a + b

    assert decided(test, 1, 2) == (3, "")
    assert decided(test, 2, 1) == (None, "not run yet")
    found, why = decided(test, 2, 1)
    assert found is None
    claim = Claim("c", "t", None, 0.0, "10", why=why)
    assert claims_table([claim]).loc["c", "interval"] == "- (not run yet)"


def test_tests_that_were_not_run_take_one_line() -> None:
    """Those with an interval keep theirs, also where the test's words are the same; so does one with its own reason."""
    run = [Claim(f"4. {name}", "t", Interval(1, 0, 2), 0.0, "02") for name in "ab"]
    idle = Claim("2. c", "t", None, 0.0, "10", why="X hardly aligns")
    waiting = [
        Claim(f"{n}. d", f"t{i}", None, 0.0, "10", why="not run yet")
        for n, count in ((2, 3), (3, 2))
        for i in range(count)
    ]
    found = brief([*waiting, idle, *run])
    assert found[2:] == [idle, *run]
    assert [(one.claim, one.test, one.why, one.verdict) for one in found[:2]] == [
        ("2. lowest tax at equal alignment", "3 tests, which notebook 10 has one by one", "not run yet", OPEN),
        ("3. needs no tuning", "2 tests, which notebook 10 has one by one", "not run yet", OPEN),
    ]


def test_changes_and_costs_by_hand() -> None:
    """Chosen answers end 1, 2 and 3 nats lower: mean -2, t interval 4.303 / sqrt(3) = 2.484 to both sides. Steps take
    4 and 1 times as long: 2 on average of logs, whose t interval of two is 12.706 ln(4) / 2 = 8.807 to both sides."""

    def run(seed: int, last: float) -> dict[str, Any]:
        measured = [{"step": 0, "chosen": -1.0}, {"step": 9, "chosen": -1.0 - last}]
        return {"method": "m", "seed": seed, "results": {"displacement": {"measured": measured}}}

    found = change([run(seed, float(seed)) for seed in (1, 2, 3)], "m", "chosen")
    assert (found.value, found.low, found.high) == pytest.approx((-2.0, -4.484, 0.484), abs=1e-3)
    with pytest.raises(ValueError, match="results must hold bnf with chosen, got m"):
        change([run(1, 1.0)], "bnf", "chosen")
    rows = [
        {"suite": "step", "variant": "BNF", "seconds": [4.0, 3.0]},
        {"suite": "step", "variant": "fine-tuning", "seconds": [1.0, 3.0]},
    ]
    ratio = cost(rows)
    assert ratio.value == pytest.approx(2.0)
    assert math.log(ratio.high / 2) == pytest.approx(8.807, abs=1e-3)
    assert ratio.low * ratio.high == pytest.approx(4.0)
    with pytest.raises(ValueError, match="rows must be of the suite step with BNF and fine-tuning"):
        cost([])


def test_a_method_that_is_not_there_is_refused() -> None:
    frame = pd.DataFrame({("a", 1): [1.0]}).rename_axis(columns=["method", "seed"])
    with pytest.raises(ValueError, match="results must hold b, got a"):
        difference(frame, "a", "b")


def test_the_papers_own_tax_is_that_of_its_table() -> None:
    """Llama-3's KTO, over GSM8K, MATH, CRUX and MMLU-redux: +1.4 points; SimPO -8.9; Gemma's BNF +0.7."""
    tax = printed_plane().set_index(["model", "method"])["tax"]
    assert tax["Meta-Llama-3-8B-Instruct", "KTO"] == pytest.approx(1.4, abs=0.06)
    assert tax["Meta-Llama-3-8B-Instruct", "SimPO"] == pytest.approx(-8.9, abs=0.06)
    assert tax["Meta-Llama-3-8B-Instruct", "BNF"] == pytest.approx(-0.7, abs=0.06)
    assert tax["Gemma-2-9b-it", "BNF"] == pytest.approx(0.7, abs=0.06)
    figure = plot_printed_plane(printed_plane())
    assert len(figure.axes) == 3
    assert figure.get_figwidth() == 7.5


def test_the_stored_results_decide_what_notebook_00_says() -> None:
    """What is decided at this size; a verdict that changes has to be read, and the sentences beside it."""
    prompts = read_prompts(Path(__file__).parents[2] / "data/quickstart/test_prompts.jsonl")
    runs = matrix.picked(read_results(RESULTS / "table4_small"))
    fewer = matrix.picked(read_results(RESULTS / "table6_small"))
    masked = {"Base": runs["Base"], "0%": fewer["pairs_0"], "100%": runs["BNF"]}
    strict, strict_fewer = (matrix.by_prompt(rescored(some, prompts)) for some in (runs, masked))
    found = claims(strict, strict_fewer, read_results(RESULTS / "collapse"), read_bench(RESULTS / "bench", ["step"]))
    gain = difference(strict["instructions"], "BNF", "Base")
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.06, -0.03, 0.14), abs=0.006), "docs/reproduce.md"
    verdicts = [(one.claim.split(".")[0], one.verdict) for one in found]
    assert {number for number, _ in verdicts} == {"1", "2", "4", "5", "6"}
    assert [verdict for number, verdict in verdicts if number in "125"] == [OPEN] * 4
    assert [verdict for number, verdict in verdicts if number == "4"] == [HOLDS, HOLDS, OPEN, OPEN]
    assert [verdict for number, verdict in verdicts if number == "6"] == [HOLDS]
