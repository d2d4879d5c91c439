"""The frontier by hand: taxes at a level of alignment that curves of few rows come to."""

from itertools import product

import numpy as np
import pytest
import yaml
from scipy import stats
from support.frontier_runs import BASE, record, run

from lightning_bnf.evaluation.statistics.paired import paired_difference
from lightning_bnf.reproduction.claims import Undecided
from lightning_bnf.reproduction.curves import curves
from lightning_bnf.reproduction.frontier import (
    CONTRASTS,
    METHODS,
    aligned_methods,
    at_level,
    contrast,
    left_out,
    level_errors,
    measured_variances,
    standing,
    tax,
    verdicts,
)
from lightning_bnf.reproduction.matching import cells, fitted
from lightning_bnf.reproduction.stages import unfinished
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.runtime.shipped import shipped


def test_who_hardly_gains_is_left_out():
    """Gains 0.4, 0.3 and 0.1 from 0.5: the last is under half of the middle one. Of two, one with under a third."""
    runs = [run("A", 1, 0.6, 0.9, 1), run("B", 1, 0.6, 0.8, 1), run("C", 1, 0.55, 0.6, 1)]
    assert left_out(curves([BASE, *runs])) == ["C"]
    assert left_out(curves([BASE, runs[0], run("C", 1, 0.6, 0.63, 1)])) == ["C"]
    assert left_out(curves([BASE, runs[0], run("C", 1, 0.6, 0.64, 1)])) == []
    with pytest.raises(Refusal, match="gains in alignment, got none"):
        left_out(curves([BASE, run("A", 1, 0.5, 0.4, 1)]))


def test_what_is_left_out_is_said():
    """The best of any moment and rate; the base passes half."""
    runs = [run("C", 1, 0.6, 0.55, 1), run("A", 1, 0.6, 0.7, 1), run("A", 1, 0.9, 0.8, 1, setting=2, rate=2e-4)]
    table = standing(curves([BASE, *runs, run("B", 1, 0.6, 0.8, 1)]))
    assert list(table.index) == ["A", "B", "C"]
    assert table["highest alignment"].tolist() == pytest.approx([0.9, 0.8, 0.6])
    assert table["gain"].tolist() == pytest.approx([0.4, 0.3, 0.1])
    assert table["compared"].tolist() == ["yes", "yes", "left out"]


def test_where_seeds_align_alike_each_has_its_own_value():
    """A has lost three quarters of 1 and 2 by the level, B of 3 and 5: what all give is linear in the seeds."""
    runs = [run("A", 1, 0.7, 0.7, 1), run("A", 2, 0.7, 0.7, 2), run("B", 1, 0.7, 0.7, 3), run("B", 2, 0.7, 0.7, 5)]
    for one in runs:
        one["results"]["likelihood"]["points"].pop(0)  # at one alignment after the base's a line is exact
    frame = at_level(curves([BASE, *runs]), "choices_ranked", ["A", "B"])
    assert list(frame.columns) == [("A", 1), ("A", 2), ("B", 1), ("B", 2)]
    assert frame.to_numpy()[:2] == pytest.approx(np.array([[-2.5, -4, -5.5, -8.5]] * 2))


def test_else_it_is_the_jackknifes():
    """Of two seeds each has what both together have, and half of what it alone has more than the other; alone it comes
    to another level too."""
    runs = [run("A", 1, 0.5, 0.9, 1.0), run("A", 2, 0.7, 0.7, 1.0)]
    whole, first, second = (
        fitted(cells(curves([BASE, *some]), ["A"], ["choices_ranked"]), "choices_ranked")["A"]
        for some in (runs, runs[:1], runs[1:])
    )
    frame = at_level(curves([BASE, *runs]), "choices_ranked", ["A"])
    half = (first - second) / 2
    assert pytest.approx(np.array([whole + half, whole - half])) == frame["A"].to_numpy().T
    assert abs(half).min() > 0.1


def test_intervals_hold_no_difference_as_often_as_they_say():
    """Methods that are the same, four rates, ten seeds, passes of 60 prompts that are drawn: in 40 experiments at most
    four intervals are off 0."""
    rng = np.random.default_rng(5)
    off = 0
    for _ in range(40):
        skill, hard, runs = rng.normal(size=60), rng.normal(size=40), []
        for method, seed, (i, strength) in product("AB", range(10), enumerate((0.2, 0.4, 0.7, 1.0))):
            made = run(method, seed, 0, 0, 0, setting=i, rate=1e-4 * 2**i)
            for point, share in zip(made["results"]["likelihood"]["points"], (0.6, 1.0)):
                gone = strength * share
                passes = skill + 0.8 * gone + 0.7 * rng.normal(size=60) > 0.4
                taxed = -(gone**2) * (0.1 + 0.05 * hard) + 0.05 * rng.normal() + 0.1 * rng.normal(size=40)
                point["values"] |= {"passes": passes.astype(float), "prose": taxed}
            runs.append(made)
        base = record("Base", 1, {1.0: (0.5, [0.0])}, setting=None)
        start = (skill > 0.4).astype(float)
        base["results"]["likelihood"]["points"][0]["values"] |= {"passes": start, "prose": np.zeros(40)}
        one = contrast(curves([base, *runs]), "prose", "A", "B", range(10))
        off += not one.low <= 0 <= one.high
    assert off <= 4


def test_a_method_that_one_seed_carries_is_left_out():
    """B's second seed gains nothing: without the first it comes to no level above the base."""
    runs = [run("A", 1, 0.6, 0.8, 1), run("A", 2, 0.6, 0.8, 1), run("B", 1, 0.6, 0.9, 1), run("B", 2, 0.5, 0.5, 1)]
    assert aligned_methods(curves([BASE, *runs])) == ["A"]


def test_the_tax_is_paired_by_row_and_seed():
    """BNF has lost three quarters of 1 at the level, DPO of 2 and 2.2: 0.825 less, with two rows and two seeds."""
    runs = [run("BNF", seed, 0.7, 0.7, 1.0) for seed in (1, 2)]
    runs += [run("DPO", seed, 0.7, 0.7, loss) for seed, loss in ((1, 2.0), (2, 2.2))]
    for one in runs:
        one["results"]["likelihood"]["points"].pop()
    found = curves([BASE, *runs])
    (line,) = tax(found, "BNF", ["choices_ranked"]).itertuples()
    assert (line.metric, line.method) == ("choices_ranked", "DPO")
    assert line.difference == pytest.approx(0.825)
    assert line.df == 1
    assert line.low < line.difference < line.high
    (variance,) = measured_variances(found, "BNF", "choices_ranked")
    assert variance.seed == pytest.approx(0.02 * 0.75**2)
    with pytest.raises(Refusal, match="of must be a method that gains in alignment, got KTO"):
        tax(found, "KTO")


def test_the_errors_of_the_level_are_those_of_a_bootstrap_over_prompts():
    """Against the plain way: curves whose prompts are drawn anew, and which are fitted again."""
    rng = np.random.default_rng(3)
    runs = []
    for method, seed, setting in product("AB", (1, 2), (1, 2)):
        made = run(method, seed, 0, 0, rng.random(), setting=setting)
        for point, rate in zip(made["results"]["likelihood"]["points"], (0.6, 0.8)):
            point["values"]["passes"] = (rng.random(30) < rate).astype(float)
        runs.append(made)
    base = record("Base", 1, {1.0: (0.5, [-1.0, -1.0, -4.0])}, setting=None)
    base["results"]["likelihood"]["points"][0]["values"]["passes"] = (np.arange(30) % 3 == 0).astype(float)
    found = curves([base, *runs])
    differences = []
    for weights in np.random.default_rng(0).multinomial(30, [1 / 30] * 30, 40):
        drawn = [
            curve._replace(
                moments=[
                    one._replace(values={**one.values, "passes": np.repeat(one.values["passes"], weights)})
                    for one in curve.moments
                ]
            )
            for curve in found
        ]
        rows = fitted(cells(drawn, ["A", "B"], ["choices_ranked"]), "choices_ranked")
        differences.append(rows["A"].mean() - rows["B"].mean())
    errors = level_errors(found, "choices_ranked", "A", ["A", "B"], draws=40)
    assert errors == {"B": pytest.approx(np.std(differences, ddof=1))}
    assert errors["B"] > 0.01
    table = tax(found, "A", ["choices_ranked"])
    frame = at_level(found, "choices_ranked", ["A", "B"])
    besides = level_errors(found, "choices_ranked", "A", ["A", "B"])["B"]
    own = paired_difference(frame["A"].to_numpy(), frame["B"].to_numpy(), besides=besides, by_seeds=True)
    assert table.loc[0, ["low", "high"]].tolist() == pytest.approx([own.low, own.high])


def lost(method: str, seed: int, loss: float, end: float = 0.7, **more):
    """A run that was measured at its end alone."""
    return record(method, seed, {1.0: (end, [-1 - loss, -1 - loss, -4 - loss])}, **more)


def test_contrasts_are_decided_by_the_stated_seeds_alone():
    """BNF loses 1 to 1.01, DPO 2 to 2.02: sixteen seeds decide, fifteen do not; with SimPO there is nothing to pair."""
    runs = [lost("BNF", seed, 1.0 + seed % 2 / 100) for seed in range(11, 27)]
    runs += [lost("DPO", seed, 2.0 + seed % 3 / 100) for seed in range(11, 27)]
    found = verdicts(curves([BASE, *runs]))
    assert [one.verdict for one in found[:4]] == ["holds", *["not decided"] * 3]
    assert [one.why for one in found[:4]] == ["", "not run yet", "not run yet", "not run yet"]
    assert "BNF - DPO, 16 seeds, 98.3%" in found[0].test
    fewer = verdicts(curves([BASE, *runs[:-1]]))
    assert {one.verdict for one in fewer} == {"not decided"}
    assert fewer[0].why == "not run yet"
    more = [lost(method, seed, loss) for method, loss in (("BNF", 9.0), ("DPO", 0.0)) for seed in (1, 2, 27)]
    assert verdicts(curves([BASE, *runs, *more])) == found, "those stated, and no others"
    others = [lost("DPO", seed, 2.0) for seed in range(31, 47)]
    assert {one.verdict for one in verdicts(curves([BASE, *runs[:16], *others]))} == {"not decided"}
    idle = [lost("DPO", seed, 2.0, end=0.55) for seed in range(11, 27)]
    assert verdicts(curves([BASE, *runs[:16], *idle]))[0].why == "DPO hardly aligns"
    nobody = [lost(method, seed, 2.0, end=0.4) for method in ("BNF", "DPO") for seed in range(11, 27)]
    assert verdicts(curves([BASE, *nobody]))[0].why == "BNF and DPO hardly aligns"
    assert [one.verdict for one in verdicts([])] == ["not decided"] * 15


def test_the_interval_of_a_contrast_is_corrected_for_three_methods():
    runs = [lost("BNF", seed, 1.0 + seed % 2 / 10) for seed in range(11, 27)]
    found = curves([BASE, *runs, *(lost("DPO", seed, 2.0 + seed % 3 / 10) for seed in range(11, 27))])
    one, claim = contrast(found, "prose", "BNF", "DPO", range(11, 27)), verdicts(found)[4]
    half = stats.t.ppf(1 - 0.05 / 6, 15) * one.error
    assert (claim.found.low, claim.found.high) == pytest.approx((one.value - half, one.value + half))
    assert one.df == 15
    assert one.low > claim.found.low


def test_where_prompts_decide_whether_a_method_aligns_nothing_is():
    """One of two prompts passes always, the other half the time, as with the base: one draw of four has that twice."""
    runs = [lost(method, seed, 1.0) for method in ("BNF", "DPO") for seed in range(11, 27)]
    for one in runs:
        one["results"]["likelihood"]["points"][0]["values"]["passes"] = [1.0, 0.5]
    with pytest.raises(Undecided, match="with other prompts one of both may not align"):
        contrast(curves([BASE, *runs]), "prose", "BNF", "DPO", range(11, 27))


@pytest.mark.parametrize(("sft", "verdict"), [(3.0, "holds"), (0.5, "fails")])
def test_the_lowest_tax_is_lower_than_each(sft, verdict):
    """BNF loses 1, DPO and SimPO 2, SFT 3 or half: one contrast that fails is enough."""
    losses = {"BNF": 1.0, "DPO": 2.0, "SimPO": 2.0, "SFT": sft}
    runs = [lost(method, seed, loss + seed % 3 / 10) for method, loss in losses.items() for seed in range(11, 27)]
    found = curves([BASE, *runs])
    *pairs, least = verdicts(found)[:4]
    assert [one.verdict for one in pairs] == ["holds", "holds", verdict]
    assert (least.claim, least.verdict) == ("2. lower tax than all three at equal alignment", verdict)
    assert least.found.low == min(one.found.low for one in pairs)
    assert least.found.high == min(one.found.high for one in pairs)
    assert least.found.value == min(one.found.value for one in pairs)
    *pairs, least = verdicts(curves([BASE, *(one for one in runs if one["method"] != "SimPO")]))[:4]
    assert pairs[1].found is None
    assert least.verdict == ("fails" if verdict == "fails" else "not decided")
    assert least.why == "not run yet"


def test_tuning_is_decided_by_the_stated_seeds():
    """Of a gain of 0.4 the mean of both rates has 0.35 of BNF's, 0.25 of DPO's. SimPO aligns too little to be asked."""
    ends = {"BNF": (0.9, 0.8), "DPO": (0.9, 0.6), "SimPO": (0.5, 0.4), "SFT": (0.9, 0.9)}
    after = [
        lost(method, seed, 1, end=end + seed % 3 / 1000, setting=setting, rate=setting * 1e-4)
        for method, both in ends.items()
        for seed in range(11, 27)
        for setting, end in enumerate(both, 1)
        if method != "SimPO" or seed < 21
    ]
    for one in after:
        if one["method"] == "SimPO":
            one["results"]["likelihood"]["points"][0]["values"]["passes"] = [ends["SimPO"][one["setting"] - 1]] * 2
    found = verdicts(curves([BASE, *after]))[-3:]
    assert [one.claim for one in found] == [
        f"3. an untuned rate keeps more of the gain than {m}'s" for m in ("DPO", "SimPO", "SFT")
    ]
    assert [one.verdict for one in found] == ["holds", "not decided", "fails"]
    assert [one.why for one in found] == ["", "SimPO hardly aligns", ""]
    assert found[0].found.value == pytest.approx(0.35 / 0.4 - 0.25 / 0.4, abs=0.01)
    assert found[2].found.value == pytest.approx(0.35 / 0.4 - 1, abs=0.01)
    fewer = [one for one in after if (one["method"], one["seed"]) != ("DPO", 26)]
    assert [one.why for one in verdicts(curves([BASE, *fewer]))[-3:]] == ["not run yet", "SimPO hardly aligns", ""]


def test_stages_say_what_is_there():
    methods = {"Base": {"once": True}, "A": {"grid": [{}, {}]}}
    stages = {
        "one": {"methods": ["Base", "A"], "seeds": [1]},
        "two": {"methods": ["A"], "seeds": [1, 2]},
        "c": {"methods": ["A"], "seeds": [3]},
    }
    done = [BASE, *(run("A", 1, 0.7, 0.9, 1, setting=setting) for setting in (1, 2))]
    found = unfinished(stages, methods, done)
    assert found["done"].tolist() == [3, 2, 0]
    assert found["state"].tolist() == ["whole", "unfinished", "not begun"]
    assert found["left"].tolist() == [0, 2, 2]
    again = unfinished({"two": stages["two"], "more": {"methods": ["A"], "seeds": [2, 3]}}, methods, done)
    assert again["left"].tolist() == [2, 2], "the runs of both stages are counted once"


def test_the_shipped_stages_hold_the_stated_methods_with_the_same_rates():
    config = yaml.safe_load(shipped("configs/reproduce/frontier_small.yaml").read_text())
    core = config["stages"]["three seeds"]
    assert sorted(core["methods"]) == sorted(METHODS)
    assert len(METHODS) == 9
    assert core["seeds"] == [1, 2, 3]
    rates = {
        tuple(point["model.optimization.learning_rate"] for point in config["methods"][name]["grid"])
        for name in core["methods"]
    }
    assert len(rates) == 1
    assert len(next(iter(rates))) == 4
    assert {name for pair in CONTRASTS for name in pair[:2]} <= set(core["methods"])


def test_the_confirming_config_has_the_stated_seeds_and_the_same_runs():
    """Fresh ones, all rates, and nothing else than more rows: what moments of a run do not share is not compared."""
    small, confirm = (
        yaml.safe_load(shipped(f"configs/reproduce/frontier_{name}.yaml").read_text()) for name in ("small", "confirm")
    )
    seeds: dict[str, set[int]] = {}
    for stage in confirm["stages"].values():
        for method in stage["methods"]:
            seeds.setdefault(method, set()).update(stage["seeds"])
    used = {seed for stage in small["stages"].values() for seed in stage["seeds"]}
    for of, against, count in CONTRASTS:
        assert len((seeds[of] & seeds[against]) - used) >= count
    for name, method in confirm["methods"].items():
        added = {
            name: method["settings"].pop(f"trainer.callbacks.init_args.{name}")
            for name in ("choices_within", "rows.choice_rows", "rows.prose_rows", "rows.verified_rows")
        }
        assert [*added.values()] == [500, 500, 64, 414]
        wanted = small["methods"][name]
        assert {"model.loss": "configs/loss/bnf.yaml"} | method["settings"] == wanted["settings"]
        assert method.get("grid") == wanted.get("grid")
    assert confirm["base"] == small["base"]
