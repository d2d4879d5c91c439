"""What a comparison hangs on, by hand: methods whose losses lie on lines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.frontier_runs import BASE, run
from transformers import PreTrainedTokenizerBase

from lightning_bnf.evaluation.likelihood.material import LikelihoodRows, material
from lightning_bnf.evaluation.likelihood.measures import row_fingerprints
from lightning_bnf.evaluation.statistics.paired import holm, paired_difference
from lightning_bnf.reproduction.curves import curves
from lightning_bnf.reproduction.frontier import TAXES, contrast
from lightning_bnf.reproduction.sensitivity import at_ends, by_choice, by_family, kept_out_families, pairs
from lightning_bnf.runtime.refusal import Refusal

LOW, HIGH = {"setting": 1, "rate": 1e-4}, {"setting": 2, "rate": 4e-4}


def test_each_choice_by_itself():
    """From 0.5 to 1 BNF loses 2 at both rates, SimPO 4 at one and 6 at the other; both align alike."""
    runs = [run("BNF", 1, 0.75, 1.0, 1, **rate) for rate in (LOW, HIGH)]
    runs += [run("SimPO", 1, 0.75, 1.0, loss, **rate) for loss, rate in ((2, LOW), (3, HIGH))]
    table = by_choice(curves([BASE, *runs]), "BNF", ["DPO", "SimPO"])
    assert list(table.index) == [("SimPO", measure) for measure in TAXES]
    assert table.loc[("SimPO", "prose")].to_dict() == pytest.approx(
        {
            "stated": 2.25,
            "half the gain": 1.5,
            "all the gain": 3.0,
            "wide fit": 2.25,
            "narrow fit": 2.25,
            "without 1e-04": 3.0,
            "without 4e-04": 1.5,
            "tuned": 1.5,  # of two rates that align alike the lower
            "best moment": 2.0,
        }
    )


def test_the_best_moment_is_one_that_comes_to_the_level():
    """Both come to 0.9, so the level is 0.8: A's half way is not there, B's is, and has lost less than its end."""
    runs = [run("A", 1, 0.7, 0.9, 1), run("B", 1, 0.8, 0.9, 1)]
    assert by_choice(curves([BASE, *runs]), "A", ["B"]).loc[("B", "prose"), "best moment"] == pytest.approx(-1.0)


def test_without_its_only_rate_that_aligns_a_method_has_no_number():
    runs = [run(m, 1, 0.7, 0.9, 1, **LOW) for m in ("A", "B")] + [run("A", 1, 0.7, 0.9, 1, **HIGH)]
    table = by_choice(curves([BASE, *runs, run("B", 1, 0.5, 0.4, 1, **HIGH)]), "A", ["B"])
    assert np.isnan(table.loc[("B", "prose"), "without 1e-04"])
    assert table.loc[("B", "prose"), "without 4e-04"] == pytest.approx(0.0)


def made(method: str, seed: int, losses: list[float]) -> dict[str, Any]:
    """Rows that differ: of three questions, at both moments."""
    one = run(method, seed, 0.7, 0.9, 1)
    for share, point in enumerate(one["results"]["likelihood"]["points"], 1):
        point["values"]["prose"] = [-1 - share * loss for loss in losses]
    return one


def test_pairs_are_the_stated_contrasts_by_all_seeds_that_both_have():
    rng = np.random.default_rng(3)
    runs = [
        made(m, seed, list(rng.uniform(0, 1, 3)))
        for m in ("A", "B", "C")
        for seed in (1, 2, 3)
        if m + str(seed) != "C3"
    ]
    found = curves([BASE, *runs, run("D", 1, 0.5, 0.51, 1), run("D", 2, 0.5, 0.51, 1)])
    table = pairs(found, "A", ["B", "C", "D"], ["prose"])
    wanted = [contrast(found, "prose", "A", other, seeds) for other, seeds in (("B", [1, 2, 3]), ("C", [1, 2]))]
    assert table["method"].tolist() == ["B", "C", "D"]
    for name, value in (("difference", "value"), ("low", "low"), ("high", "high"), ("df", "df"), ("p", "p")):
        assert table[name].tolist()[:2] == [getattr(one, value) for one in wanted]
    assert table["df"].tolist()[:2] == [2, 1]
    assert table["corrected"].tolist()[:2] == holm([one.p for one in wanted])
    assert table["why"].tolist() == ["", "", "D hardly aligns"]
    assert table.loc[2, ["difference", "low", "p", "corrected"]].isna().all()


def test_ends_are_compared_rate_by_rate_whatever_they_align():
    """Of the second rate both have one seed alone, of the third A none."""
    rng = np.random.default_rng(4)
    runs = [made(m, seed, list(rng.uniform(0, 1, 3))) for m in ("A", "B") for seed in (1, 2, 3)]
    runs += [run(m, 1, 0.7, 0.9, 1, **HIGH) for m in ("A", "B")] + [run("B", 1, 0.7, 0.9, 1, setting=3, rate=1e-3)]
    table = at_ends(curves([BASE, *runs]), "A", "B", ["prose"])
    first, second = (
        np.array([one["results"]["likelihood"]["points"][-1]["values"]["prose"] for one in runs[i : i + 3]]).T
        for i in (0, 3)
    )
    wanted = paired_difference(first, second)
    (line,) = table.itertuples()
    assert (line.rate, line.metric) == (1e-4, "prose")
    assert (line.difference, line.low, line.high, line.df, line.p) == (
        wanted.value,
        wanted.low,
        wanted.high,
        wanted.df,
        wanted.p,
    )


def test_families_become_measures():
    one = run("A", 1, 0.7, 0.9, 1)
    for point, passes in zip(one["results"]["likelihood"]["points"], ([1, 0, 1], [0, 0, 1])):
        point["values"]["passes_kept_out"] = passes
    base = json.loads(json.dumps(BASE))
    base["results"]["likelihood"]["points"][0]["values"]["passes_kept_out"] = [1, 1, 0]
    (split,) = by_family(curves([base, one]), ["x", "y", "x"])
    assert [moment.values["x"].tolist() for moment in split.moments] == [[1, 0], [1, 1], [0, 1]]
    assert [moment.values["y"].tolist() for moment in split.moments] == [[1], [0], [0]]
    assert [moment.values["passes"].tolist() for moment in split.moments] == [[0.5] * 2, [0.7] * 2, [0.9] * 2]
    with pytest.raises(Refusal, match="families must be of 3 rows, got 2"):
        by_family(curves([base, one]), ["x", "y"])


def asked(tmp_path: Path, kept_out: list[bool]) -> str:
    path = tmp_path / "asked.jsonl"
    rows = [
        {"prompt": f"What is {i}?", "family": f"f{i % 2}", "kept_out": out, "verifier": {"name": "number", "answer": i}}
        for i, out in enumerate(kept_out)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_families_are_those_of_the_rows_that_were_measured(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = asked(tmp_path, [False, True, True, True, False, True])
    rows = {"verified": "asked.jsonl", "verified_rows": 4}
    of = material(LikelihoodRows(choices=[], prose=None, verified=path, verified_rows=4), tokenizer)
    callbacks = [{"class_path": "lightning_bnf.callbacks.MeasureLikelihood", "init_args": {"rows": rows}}]
    record = {
        "results": {"likelihood": {"fingerprints": row_fingerprints(of)}},
        "config": {"trainer": {"callbacks": callbacks}},
    }
    wanted = [prompt.family for prompt in of.verified if prompt.kept_out]
    assert kept_out_families(record, tokenizer, tmp_path) == wanted
    assert 1 <= len(wanted) < 4
    (tmp_path / "asked.jsonl").write_text((tmp_path / "asked.jsonl").read_text().replace("What is", "And what is"))
    with pytest.raises(Refusal, match=r"must hold the prompts that were measured \(.*\), got others"):
        kept_out_families(record, tokenizer, tmp_path)
