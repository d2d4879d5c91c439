"""Curves of few rows, by hand."""

import json
from pathlib import Path

import pytest
from support.frontier_runs import BASE, run

from lightning_bnf.reproduction.curves import averaged, complete, curves, points, read_curves, shared_seeds
from lightning_bnf.runtime.refusal import Refusal


def test_means_are_over_the_rows_that_all_moments_have():
    found = points(curves([BASE, run("BNF", 1, 0.7, 0.9, 1.0)]))
    taxed = found[found["measure"] == "choices_ranked"]
    assert taxed["value"].tolist() == [-1.0, -2.0, -3.0], "and not the third question, which the end alone has"
    assert taxed["share"].tolist() == [0.0, 0.5, 1.0]


def test_curves_are_averaged_over_seeds_row_by_row():
    runs = [run("A", 1, 0.7, 0.9, 1.0), run("A", 2, 0.6, 1.0, 2.0), run("A", 3, 0.1, 0.1, 9.0)]
    (curve,) = averaged(curves([BASE, *runs]), [1, 2])
    assert [one.values["passes"].tolist() for one in curve.moments] == [
        pytest.approx([share] * 2) for share in (0.5, 0.65, 0.95)
    ]
    assert curve.moments[1].values["choices_ranked"].tolist() == [-2.5, -2.5]
    assert curve.moments[2].values["choices_ranked"].tolist() == [-4.0, -4.0, -9.0]
    assert shared_seeds(curves([BASE, *runs, run("B", 2, 0.7, 0.9, 1), run("B", 4, 0.7, 0.9, 1)])) == [2]


def test_a_method_counts_once_its_rates_are_all_there():
    """A and B at two rates; of C, and of A's second seed, one is missing; D is no method that is compared."""
    runs = [
        run(m, s, 0.7, 0.9, 1, setting=i, rate=r)
        for m, s, i, r in (
            ("A", 1, 1, 1e-4),
            ("A", 1, 2, 2e-4),
            ("A", 2, 1, 1e-4),
            ("B", 1, 1, 1e-4),
            ("B", 1, 2, 2e-4),
            ("C", 1, 1, 1e-4),
            ("D", 1, 1, 1e-4),
            ("D", 1, 2, 2e-4),
            ("D", 1, 3, 4e-4),
        )
    ]
    kept = complete(curves([BASE, *runs]), ["A", "B", "C"])
    assert [(curve.method, curve.seed, curve.setting) for curve in kept] == [
        ("A", 1, 1),
        ("A", 1, 2),
        ("B", 1, 1),
        ("B", 1, 2),
    ]


def test_or_once_it_has_all_seeds_of_a_plan():
    """A has three seeds, of which the third is not asked for, B two, and C the first alone."""
    runs = [run(m, s, 0.7, 0.9, 1) for m, s in (("A", 1), ("A", 2), ("A", 3), ("B", 1), ("B", 2), ("C", 1))]
    kept = complete(curves([BASE, *runs]), ["A", "B", "C"], [1, 2])
    assert [(curve.method, curve.seed) for curve in kept] == [("A", 1), ("A", 2), ("B", 1), ("B", 2)]
    assert complete(curves([BASE, *runs]), ["B", "C"], [3]) == []


def test_curves_of_a_folder(tmp_path: Path):
    assert read_curves(tmp_path / "none") == []
    (tmp_path / "Base_seed1.json").write_text(json.dumps(BASE))
    assert read_curves(tmp_path) == []
    (tmp_path / "A_seed1.json").write_text(json.dumps(run("A", 1, 0.7, 0.9, 1)))
    (curve,) = read_curves(tmp_path)
    assert (curve.method, len(curve.moments)) == ("A", 3)


def test_what_was_measured_on_other_rows_is_refused():
    with pytest.raises(Refusal, match="must hold a run of Base"):
        curves([run("A", 1, 0.7, 0.9, 1)])
    with pytest.raises(Refusal, match="measured on the base's rows, got others of A, setting 1, seed 2"):
        curves([BASE, run("A", 2, 0.7, 0.9, 1, rows="others")])
