"""Flows in time against their closed forms."""

import numpy as np
import pytest

from lightning_bnf.reproduction.weight_flow import (
    WEIGHTS,
    bnf_closed,
    bnf_flow,
    dpo_flow,
    flows,
    late_slope,
    near_duplicates,
)

TIMES = np.geomspace(0.01, 1e4, 30)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_bnf_goes_on_without_bound_by_its_closed_form(alpha):
    """At t = 0.01 of alpha 1 it is -ln 1.01; late each e-fold of time is 1 / alpha nats."""
    moved = bnf_flow(TIMES, alpha)
    assert moved == pytest.approx(bnf_closed(TIMES, alpha), abs=1e-5)
    assert bnf_closed(TIMES)[0] == pytest.approx(-np.log(1.01))
    assert late_slope(TIMES, moved) == pytest.approx(-1 / alpha, rel=1e-3)


def test_alpha_zero_falls_in_a_line():
    times = np.array([0.5, 1.0, 2.0])
    assert bnf_flow(times, 0.0, start=1e-9) == pytest.approx(-times, abs=1e-6)
    assert bnf_closed(times, 0.0).tolist() == [-0.5, -1.0, -2.0]


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
def test_dpo_goes_on_without_bound_as_one_over_beta(beta):
    """exp(-beta r) - beta r = 1 + beta^2 t: at beta 0.1 it takes until t = 1e4 to be on its slope."""
    moved = dpo_flow(TIMES, beta)
    assert np.exp(-beta * moved) - beta * moved == pytest.approx(1 + beta**2 * TIMES, rel=1e-5)
    assert late_slope(TIMES, moved) == pytest.approx(-1 / beta, rel=0.05)


def test_a_likely_token_is_pushed_less_at_first():
    """Half likely, it falls half as fast: by t / 2 for a short time."""
    assert bnf_flow(np.array([0.001, 0.01]), 1.0, start=0.5)[-1] == pytest.approx(-0.005, rel=0.01)


def test_all_flows_are_in_one_table():
    table = flows(TIMES[:3])
    assert table.groupby("kind")["strength"].nunique().to_dict() == {"BNF": 4, "DPO": 3}
    assert len(table) == 21


def test_near_duplicates_without_similarity_leave_the_chosen_answer_alone():
    """Apart, the chosen token only rises, whatever the weight."""
    toy = near_duplicates(np.array([0.0, 1.0, 10.0]), similarity=0.0)
    assert (toy.groupby("method")["chosen"].last() > 0).all()
    assert (toy.groupby("method")["rejected"].last() < 0).all()


def test_restore_brings_back_what_a_near_duplicate_dragged_down():
    """Two contexts alike: NLL + PLL drags the chosen token down and on, BNF less, restore hardly,
    at margins that differ by less than a nat between the two."""
    toy = near_duplicates(np.linspace(0, 300, 200), similarity=0.97, chosen=0.95, rejected=0.2)
    last = toy.groupby("method")[["chosen", "margin"]].last()
    assert list(dict.fromkeys(toy["method"])) == list(WEIGHTS)
    assert last.loc["NLL+PLL", "chosen"] < -3
    assert -1.1 < last.loc["BNF", "chosen"] < -0.8
    assert last.loc["BNF-restore", "chosen"] > -0.1
    assert abs(last.loc["BNF", "margin"] - last.loc["BNF-restore", "margin"]) < 1
