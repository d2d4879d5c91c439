"""Made-up experiments: what is drawn is what a world says, and intervals hold its truth."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.frontier_runs import BASE, record, run

from lightning_bnf.reproduction.curves import Curve, curves
from lightning_bnf.reproduction.frontier import CONTRASTS, TAXES
from lightning_bnf.reproduction.matched_coverage import World, chance, matched_coverage, normal
from lightning_bnf.runtime.refusal import Refusal

RESULTS = Path(__file__).parents[2] / "notebooks/results"


def measured(seeds: int = 3, prompts: int = 60) -> list[Curve]:
    """Two methods alike at two rates: passes rise from a third to two, prose falls by 0.1 and 0.2, runs differ."""
    rng = np.random.default_rng(2)
    skill, runs = rng.normal(size=prompts), []
    for method, seed, setting in product("AB", range(1, seeds + 1), (1, 2)):
        made, shift = run(method, seed, 0, 0, 0, setting=setting, rate=setting * 1e-4), 0.1 * rng.normal()
        for point, gained in zip(made["results"]["likelihood"]["points"], (0.5, 1.0)):
            passes = skill + gained + shift + 0.5 * rng.normal(size=prompts) > 0.4
            point["values"] |= {"passes": passes.astype(float), "passes_kept_out": passes[:30].astype(float)}
            point["values"] |= {"prose": -0.2 * gained + 0.02 * rng.normal() + 0.1 * rng.normal(size=20)}
        runs.append(made)
    base, start = record("Base", 1, {1.0: (0.5, [0.0, 0.0])}, setting=None), (skill > 0.4).astype(float)
    base["results"]["likelihood"]["points"][0]["values"] |= {
        "passes": start,
        "passes_kept_out": start[:30],
        "prose": np.zeros(20),
    }
    return curves([base, *runs])


def test_chances_and_what_runs_differ_by_are_found_again():
    """Of 4,000 prompts and 60 runs that shift all of them by 0.3 (standard deviation, in normal scores)."""
    rng = np.random.default_rng(1)
    skill, shifts = rng.normal(size=(4000, 1)), 0.3 * rng.normal(size=60)
    found = chance((skill + shifts + rng.normal(size=(4000, 60)) > 0).astype(float), begun=True)
    assert found.run == pytest.approx(0.3 / np.sqrt(1), rel=0.2)
    assert found.mean.mean() == pytest.approx(0.5, abs=0.03)
    assert np.corrcoef(found.mean, skill[:, 0])[0, 1] > 0.95
    values = normal(skill + 0.2 * rng.normal(size=60) + 0.5 * rng.normal(size=(4000, 60)), begun=True)
    assert (values.run, values.rest) == pytest.approx((0.2, 0.5), rel=0.2)
    assert np.corrcoef(values.mean, skill[:, 0])[0, 1] > 0.95


def test_what_is_drawn_is_on_average_what_is_expected():
    world = World(measured(), "A", "B")
    wanted, drawn = world.expected(), list(world.drawn(200, 40.0, np.random.default_rng(3)))
    assert len(drawn) == 200 * len(wanted)
    for i, curve in enumerate(wanted):
        mine = [one for one in drawn if (one.method, one.setting) == (curve.method, curve.setting)]
        for j, name in product(range(3), ("passes", "passes_kept_out", "prose")):
            means = np.array([one.moments[j].values[name].mean() for one in mine])
            assert means.mean() == pytest.approx(curve.moments[j].values[name].mean(), abs=0.02), (i, j, name)
        assert set(np.unique(mine[0].moments[2].values["passes"])) == {0.0, 1.0}
        assert np.std([one.moments[2].values["prose"].mean() for one in mine]) == pytest.approx(
            world.cells[i, 2, "prose"].run, abs=0.01
        )
    both = np.corrcoef(mine[0].moments[1].values["passes"], mine[0].moments[2].values["passes"])[0, 1]
    assert both > 0.4


def test_the_truth_is_the_rules_own():
    """A loses 1 and B 2 at the end, and half of that at the first moment: three quarters of that at the level."""
    runs = [run(method, seed, 0, 0, loss) for method, loss in (("A", 0.5), ("B", 1.0)) for seed in (1, 2)]
    for one in runs:
        for point, passes in zip(one["results"]["likelihood"]["points"], ([1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0])):
            point["values"]["passes"] = passes
    base = record("Base", 1, {1.0: (0.5, [-1.0, -1.0, -4.0])}, setting=None)
    base["results"]["likelihood"]["points"][0]["values"]["passes"] = [0.0] * 4
    world = World(curves([base, *runs]), "A", "B")
    for curve in world.expected():
        assert [float(one.values["passes"].mean()) for one in curve.moments] == pytest.approx([0, 0.25, 0.5], abs=1e-3)
    assert world.truth("prose") == pytest.approx(0.75, abs=0.01)
    with pytest.raises(Refusal, match="found must hold two seeds or more of A and B, got 1"):
        World(curves([BASE, run("A", 1, 0.6, 0.7, 1), run("B", 1, 0.6, 0.7, 1)]), "A", "B")


def test_runs_shift_together_as_far_as_they_did():
    """Kept-out passes are the first half of the others here, and prose has nothing to do with them."""
    world = World(measured(seeds=12), "A", "B")
    assert world.together["passes_kept_out"] > 0.7
    assert abs(world.together["prose"]) < 0.5
    world.together |= {"passes_kept_out": 1.0, "prose": 0.0}
    shifts = [world._shifts(np.random.default_rng(i)) for i in range(300)]
    assert all(one["passes"] == one["passes_kept_out"] for one in shifts)
    assert abs(np.corrcoef([one["passes"] for one in shifts], [one["prose"] for one in shifts])[0, 1]) < 0.2


def test_what_an_untuned_rate_keeps_is_known():
    """Both rates of both methods gain alike, but for chance."""
    world = World(measured(prompts=400), "A", "B")
    gains = [
        float((one.moments[-1].values["passes"] - one.moments[0].values["passes"]).mean()) for one in world.expected()
    ]
    assert world.untuned() == pytest.approx(sum(gains[:2]) / 2 / max(gains[:2]) - sum(gains[2:]) / 2 / max(gains[2:]))
    assert abs(world.untuned()) < 0.2


def test_intervals_hold_the_truth_as_often_as_they_say():
    table = matched_coverage(measured(), "A", "B", seeds=4, times=1.0, repeats=40, draw=1)
    assert table["metric"].tolist() == [*TAXES, "untuned"]
    assert table["decided"].min() > 0.9
    assert table["coverage"].min() >= 0.9 - 1e-9
    assert table["coverage"].tolist() == pytest.approx((1 - table["below"] - table["above"]).tolist())
    assert table["width"].iloc[1:].min() > 0.01


def test_a_method_is_not_told_from_itself():
    table = matched_coverage(measured(), "A", "A", seeds=4, times=1.0, repeats=40, draw=1)
    assert table["against"].unique().tolist() == ["A"]
    assert table["truth"].tolist() == pytest.approx([0.0] * 4)
    assert table["decided"].min() > 0.9
    assert (table["holds"] + table["fails"]).max() <= 0.1


def test_the_stored_coverage_is_that_of_95_percent_intervals():
    """2,000 made-up experiments of each stated contrast with its seeds, three draws. Against DPO, whose seeds differ
    most, too many intervals of two measures miss the truth, nearly all on the side of no difference; a verdict on the
    wrong side comes out in one of a thousand at most, and a method against itself has one in hardly any."""
    table = pd.read_csv(RESULTS / "coverage/matched.csv")
    apart, alike = table[table["of"] != table["against"]], table[table["of"] == table["against"]]
    for draw in (1, 2, 3):
        mine = apart[apart["draw"] == draw]
        assert {*mine[["of", "against", "seeds"]].itertuples(index=False, name=None)} == set(CONTRASTS)
        assert set(mine["repeats"]) == {2000}
        assert len(mine) == 4 * len(CONTRASTS)
    narrow = apart["against"].eq("DPO") & apart["metric"].isin(["prose", "passes_kept_out"])
    assert table[~narrow.reindex(table.index, fill_value=False)]["coverage"].min() >= 0.93
    assert apart[narrow]["coverage"].between(0.91, 0.935).all(), "notebook 00 says so"
    assert apart[narrow]["below"].max() <= 0.01
    wrong = apart["holds"].where(apart["truth"] < 0, apart["fails"])
    assert wrong.max() <= 0.001
    assert set(alike["of"]) == {"BNF", "DPO", "SFT", "SimPO"}
    assert (alike["holds"] + alike["fails"]).max() <= 0.05
