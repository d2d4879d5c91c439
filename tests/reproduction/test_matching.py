"""Where methods are compared: the fit against numpy's own, and what of a curve counts."""

import numpy as np
import pytest
from support.frontier_runs import BASE, run

from lightning_bnf.reproduction.curves import averaged, curves
from lightning_bnf.reproduction.matching import counted, fitted, highest, match, weights
from lightning_bnf.runtime.refusal import Refusal


def test_the_level_is_three_quarters_of_what_all_gained():
    """A comes to 0.9 by way of 0.8, and with another rate to 0.6; B to 0.7, where its second rate falls from 0.5, and
    its third from 0.6. They are compared 0.15 above 0.5: A's first rate is there at its first moment."""
    runs = [run("A", 1, 0.8, 0.9, 1), run("A", 1, 0.55, 0.6, 1, setting=2), run("B", 1, 0.6, 0.7, 1)]
    runs += [run("B", 1, 0.49, 0.4, 1, setting=2), run("B", 1, 0.6, 0.5, 1, setting=3)]
    found = curves([BASE, *runs])
    assert highest(found) == pytest.approx({"A": 0.9, "B": 0.7})
    at = match(found)
    assert at.gain == pytest.approx(0.15)
    assert at.last == {("A", 1): 1, ("A", 2): 2, ("B", 1): 2, ("B", 2): 0, ("B", 3): 1}
    assert counted(found, "A", "passes", at).mean(axis=1) == pytest.approx([0.5, 0.8, 0.5, 0.55, 0.6])
    with pytest.raises(
        Refusal, match=r"methods must gain in alignment, got C, with 0\.500 at most, 0\.500 of the base"
    ):
        match(curves([BASE, runs[0], run("C", 1, 0.5, 0.4, 1)]))


def test_a_curve_that_comes_to_just_the_level_is_there():
    """69 of 132 prompts, of a level between 60 and 72 of them."""
    runs = [run("A", 1, 69 / 132, 72 / 132, 1)]
    base = run("Base", 1, 0.0, 60 / 132, 0.0)
    assert match(curves([base, *runs])).last == {("A", 1): 1}


def test_the_fit_is_that_of_weighted_least_squares():
    rng = np.random.default_rng(0)
    runs = [run("A", seed, *rng.uniform(0.55, 0.9, 2), rng.random(), setting=i) for seed in (1, 2) for i in (1, 2, 3)]
    found = averaged(curves([BASE, *runs]), [1, 2])
    at = match(found)
    x = counted(found, "A", "passes", at).mean(axis=1)
    y = counted(found, "A", "choices_ranked", at)
    near = np.exp(-(((x - x[0] - at.gain) / at.gain) ** 2) / 2)
    wanted = [np.polyval(np.polyfit(x, rows, 1, w=np.sqrt(near)), x[0] + at.gain) for rows in y.T]
    assert fitted(found, "choices_ranked", ["A"], at)["A"] == pytest.approx(wanted)
    many = np.array([x, x + 0.01 * rng.normal(size=len(x))])
    assert weights(many, 0.2)[1] == pytest.approx(weights(many[1], 0.2))
    assert weights(many, 0.2).sum(axis=1) == pytest.approx([1, 1])


def test_on_a_line_it_is_the_line():
    """However moments lie: from 0.5 to 0.9 two are lost."""
    found = curves([BASE, run("A", 1, 0.7, 0.9, 1)])
    assert fitted(found, "choices_ranked", ["A"], match(found))["A"] == pytest.approx([-1 - 2 * 0.75] * 2)
