"""Methods against one of them, by hand; and the stored coverage of such intervals."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lightning_bnf.evaluation.statistics.paired import paired_difference
from lightning_bnf.reproduction.contrasts import contrast_texts, contrasts, coverage, paired, seen, variances

ROOT = Path(__file__).parents[2]


def frame(**methods: dict[int, list[float]]) -> pd.DataFrame:
    columns = {(name, seed): values for name, runs in methods.items() for seed, values in runs.items()}
    return pd.DataFrame(columns).rename_axis(columns=["method", "seed"])


SCORES = {
    "x": frame(
        Base={1: [0, 0, 1, 0]},
        bnf={1: [1, 1, 1, 0], 2: [1, 0, 1, 1]},
        dpo={2: [0, 0, 1, 1], 1: [1, 0, 0, 0]},
    )
}


def test_runs_are_paired_by_seed_not_by_place() -> None:
    """Seed 1: bnf - dpo is 0, 1, 1, 0; seed 2: 1, 0, 0, 0."""
    first, second = paired(SCORES["x"], "bnf", "dpo")
    assert (first - second).T.tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]
    table = contrasts(SCORES, "bnf").set_index("method")
    assert table.loc["dpo", "difference"] == 3 / 8
    assert table.loc["dpo", "p"] == paired_difference(first, second).p
    assert list(variances(SCORES["x"], "bnf")) == ["dpo"], "the base has one run"


def test_a_method_of_one_run_is_compared_with_every_run() -> None:
    """Base less bnf is bnf less Base, turned."""
    turned = contrasts(SCORES, "Base").set_index("method").loc["bnf"]
    straight = contrasts(SCORES, "bnf").set_index("method")
    assert (turned["low"], turned["high"]) == (-straight.loc["Base", "high"], -straight.loc["Base", "low"])
    assert (straight["corrected"] >= straight["p"]).all()


def test_an_error_besides_widens_the_interval_of_its_method() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({(m, s): rng.random(5) for m in "ABC" for s in (1, 2)}).rename_axis(columns=["method", "seed"])
    plain, wide = (contrasts({"x": frame}, "A", besides).set_index("method") for besides in (None, {"B": 0.3}))
    assert wide.loc["B", "difference"] == plain.loc["B", "difference"]
    half = plain["high"] - plain["difference"]
    error = half["B"] / stats.t.ppf(0.975, plain.loc["B", "df"])
    wider = (error**2 + 0.3**2) ** 0.5 / error
    assert wide.loc["B", "high"] - wide.loc["B", "difference"] == pytest.approx(wider * half["B"])
    assert wide.loc["B", "p"] > plain.loc["B", "p"]
    assert wide.loc["C", ["low", "high", "p"]].tolist() == plain.loc["C", ["low", "high", "p"]].tolist()


def test_jackknifed_columns_have_the_seeds_degrees_of_freedom() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({(m, s): rng.random(5) for m in "AB" for s in (1, 2, 3)}).rename_axis(
        columns=["method", "seed"]
    )
    (plain,), (careful,) = (contrasts({"x": frame}, "A", None, one).itertuples() for one in (False, True))
    own = paired_difference(frame["A"].to_numpy(), frame["B"].to_numpy(), by_seeds=True)
    assert (careful.df, careful.low, careful.high, careful.p) == (2, own.low, own.high, own.p)
    assert plain.df > 2
    assert careful.corrected >= careful.p


def test_two_single_runs_have_no_interval() -> None:
    table = contrasts({"x": frame(a={1: [1, 0]}, b={1: [0, 0]})}, "a")
    assert table["difference"].tolist() == [0.5]
    assert table[["low", "high", "df", "p", "corrected"]].isna().all(axis=None)
    assert contrast_texts(table).loc["b", "x"] == "+0.50 (one seed)"


def test_a_star_is_for_what_holds_after_correction() -> None:
    runs = {seed: [1.0, 1.0, 0.9, 1.0] for seed in (1, 2, 3)}
    other = {seed: [0.0, 0.1, 0.0, 0.0] for seed in (1, 2, 3)}
    assert contrast_texts(contrasts({"x": frame(a=runs, b=other)}, "a")).loc["b", "x"].endswith("]*")
    assert not contrast_texts(contrasts(SCORES, "bnf")).loc["dpo", "x"].endswith("*")


def test_other_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="b: seeds must be those of a, 1, 2, got 1, 3"):
        contrasts({"x": frame(a={1: [1, 0], 2: [1, 0]}, b={1: [1, 0], 3: [1, 0]})}, "a")


def test_what_could_be_seen() -> None:
    table = seen(SCORES, "bnf", wanted=(0.5, 0.001))
    assert table.loc["x", ["prompts", "seeds"]].tolist() == [4, 2]
    assert table.loc["x", "seeds for 0.001"] == "over 200"
    assert int(table.loc["x", "seeds for 0.5"]) > 2


def test_coverage_is_asked_of_every_case() -> None:
    table = coverage(SCORES, "bnf", ["dpo"], seeds=(3,), repeats=20, draws=(1, 2))
    assert len(table) == 1 * 1 * 2 * 1 * 2
    assert table["coverage"].between(0.5, 1).all()


def test_the_stored_coverage_is_that_of_95_percent_intervals() -> None:
    """2,000 made-up comparisons of each case, three draws: all within 0.93 and 0.98."""
    table = pd.read_csv(ROOT / "notebooks/results/coverage/coverage.csv")
    assert set(table["repeats"]) == {2000}
    assert set(table["draw"]) == {1, 2, 3}
    assert {"instructions", "reasoning", "other instructions"} <= set(table["metric"])
    assert table["coverage"].between(0.93, 0.98).all()
    assert np.unique(table["seeds"]).tolist() == [3, 10]
