"""Where methods are compared: the fit against numpy's own, and what it is made of."""

import numpy as np
import pytest
from support.frontier_runs import BASE, run

from lightning_bnf.reproduction.curves import curves
from lightning_bnf.reproduction.matching import cells, fitted, highest, shared_gain, weights, without
from lightning_bnf.runtime.refusal import Refusal


def test_all_moments_of_all_rates_count():
    """A comes to 0.9 by way of 0.8, and with another rate to 0.6; B to 0.7. They are compared 0.15 above 0.5."""
    runs = [run("A", 1, 0.8, 0.9, 1), run("A", 1, 0.55, 0.6, 1, setting=2), run("B", 1, 0.6, 0.7, 1)]
    runs += [run("B", 1, 0.49, 0.4, 1, setting=2), run("B", 1, 0.6, 0.5, 1, setting=3)]
    found = curves([BASE, *runs])
    assert highest(found) == pytest.approx({"A": 0.9, "B": 0.7})
    table = cells(found, ["A", "B"], ["prose"])
    shares = {method: own["passes"].mean(axis=(0, 2)) for method, own in table.items()}
    assert shares["A"] == pytest.approx([0.5, 0.8, 0.9, 0.5, 0.55, 0.6])
    assert shares["B"] == pytest.approx([0.5, 0.6, 0.7, 0.5, 0.49, 0.4, 0.5, 0.6, 0.5])
    assert shared_gain(shares) == pytest.approx(0.15)
    assert shared_gain(shares, part=1.0) == pytest.approx(0.2)
    assert table["A"]["prose"].shape == (1, 6, 2), "the rows that every moment has"
    assert table["A"]["prose"][0, :, 0] == pytest.approx([-1, -2, -3, -1, -2, -3])


def test_seeds_are_those_that_methods_share_in_one_order():
    runs = [run(method, seed, 0.6, 0.6 + seed / 10, 1) for method, seed in (("A", 3), ("A", 1), ("B", 1), ("B", 2))]
    runs += [run("B", 3, 0.6, 0.9, 1), run("A", 1, 0.5, 0.5, 1, setting=2), run("A", 3, 0.5, 0.7, 1, setting=2)]
    table = cells(curves([BASE, *runs]), ["A", "B"], [])
    assert table["A"]["passes"].mean(axis=2)[:, [2, 5]] == pytest.approx(np.array([[0.7, 0.5], [0.9, 0.7]]))
    assert without(table, 0)["B"]["passes"].mean(axis=2) == pytest.approx(np.array([[0.5, 0.6, 0.9]]))
    with pytest.raises(Refusal, match="must have a seed that A, B share at every rate, got none"):
        cells(curves([BASE, run("A", 1, 0.6, 0.7, 1), run("B", 2, 0.6, 0.7, 1)]), ["A", "B"], [])


def test_the_fit_is_that_of_weighted_least_squares():
    rng = np.random.default_rng(0)
    runs = [run("A", seed, *rng.uniform(0.55, 0.9, 2), rng.random(), setting=i) for seed in (1, 2) for i in (1, 2, 3)]
    table = cells(curves([BASE, *runs]), ["A"], ["choices_ranked"])
    x = table["A"]["passes"].mean(axis=(0, 2))
    y = table["A"]["choices_ranked"].mean(axis=0)
    gain = 0.75 * (x.max() - x[0])
    near = np.exp(-(((x - x[0] - gain) / gain) ** 2) / 2)
    wanted = [np.polyval(np.polyfit(x, rows, 1, w=np.sqrt(near)), x[0] + gain) for rows in y.T]
    assert fitted(table, "choices_ranked")["A"] == pytest.approx(wanted)
    near = near ** (1 / 4)  # twice as wide
    wanted = [np.polyval(np.polyfit(x, rows, 1, w=np.sqrt(near)), x[0] + gain) for rows in y.T]
    assert fitted(table, "choices_ranked", width=2.0)["A"] == pytest.approx(wanted)
    many = np.array([x, x + 0.01 * rng.normal(size=len(x))])
    assert weights(many, np.array([0.1, 0.2]))[1] == pytest.approx(weights(many[1], 0.2))
    assert weights(many, 0.2).sum(axis=1) == pytest.approx([1, 1])


def test_on_a_line_it_is_the_line():
    """However moments lie: from 0.5 to 0.9 two are lost."""
    table = cells(curves([BASE, run("A", 1, 0.7, 0.9, 1)]), ["A"], ["choices_ranked"])
    assert fitted(table, "choices_ranked")["A"] == pytest.approx([-1 - 2 * 0.75] * 2)
    assert fitted(table, "choices_ranked", part=0.5)["A"] == pytest.approx([-1 - 2 * 0.5] * 2)


def test_a_method_that_gains_nothing_has_no_fit():
    table = cells(curves([BASE, run("A", 1, 0.7, 0.9, 1), run("B", 1, 0.5, 0.4, 1)]), ["A", "B"], ["prose"])
    assert not np.isfinite(fitted(table, "prose")["A"]).any()
