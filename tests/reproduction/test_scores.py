"""Scores of a made-up matrix, by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from lightning_bnf.reproduction.scores import (
    by_prompt,
    by_result,
    by_seed,
    means,
    picked,
    resampled,
    runs_table,
    texts,
    tradeoff,
    win_rates,
)

PROMPTS = [
    ("p", "trained", "plural"),
    ("q", "trained", "list"),
    ("r", "kept-out", "smallest"),
    ("s", "kept-out", "city"),
]


def run(
    method: str, setting: int | None, seed: int, validation: list[int], test: list[int], length: int
) -> dict[str, Any]:
    def one(prompt: str, group: str, family: str, passed: int, decoding: str = "greedy") -> dict[str, Any]:
        value = {"text": "", "passed": bool(passed), "score": float(passed), "length": length, "finished": True}
        return {"prompt_id": prompt, "groups": [group, family], "decoding": decoding, **value}

    tests = [one(*prompt, passed) for prompt, passed in zip(PROMPTS, test)]
    sampled = [one(*prompt, 1, "sampled") for prompt in PROMPTS]
    valid = [one(str(i), "trained", "plural", passed) for i, passed in enumerate(validation)]
    config = {"model": {"optimization": {"learning_rate": 1e-4 * (setting or 1)}, "loss": {"init_args": {"beta": 0.1}}}}
    scores = {"validation": valid, "test": tests + sampled}
    return {"method": method, "setting": setting, "seed": seed, "config": config, "results": {"scores": scores}}


RECORDS = [
    run("Base", None, 1, [0, 0], [0, 1, 1, 0], 10),
    run("bnf", 1, 1, [0, 1], [0, 0, 0, 0], 99),
    run("bnf", 2, 1, [1, 1], [1, 1, 1, 0], 20),
    run("bnf", 2, 2, [0, 0], [1, 0, 1, 1], 30),
    run("dpo", 1, 1, [1, 0], [1, 1, 0, 0], 40),
    run("dpo", 2, 1, [0, 1], [0, 0, 0, 0], 99),
]


def test_the_setting_that_passes_most_validation_prompts_is_picked() -> None:
    """bnf: 1 of 2 and 2 of 2, so the second, with both its seeds; dpo: equal, so the first."""
    found = picked(RECORDS)
    assert {name: [(run["setting"], run["seed"]) for run in runs] for name, runs in found.items()} == {
        "Base": [(None, 1)],
        "bnf": [(2, 1), (2, 2)],
        "dpo": [(1, 1)],
    }
    table = runs_table(RECORDS).set_index(["method", "learning rate"])
    assert table.loc[("bnf", 2e-4), "picked"] == "yes"
    assert table.loc[("bnf", 1e-4), "picked"] == ""
    assert list(table.loc[("bnf", 2e-4), ["seed 1", "seed 2"]]) == ["1.00", "0.00"]


def test_settings_are_compared_by_a_seed_that_all_have() -> None:
    """The second setting passes more with seed 3, the one that both were tried with; with seed 1 it was not tried."""
    runs = [run("m", 1, 1, [1, 1], [1] * 4, 5), run("m", 1, 3, [0, 0], [1] * 4, 5), run("m", 2, 3, [0, 1], [1] * 4, 5)]
    assert [one["setting"] for one in picked(runs)["m"]] == [2]
    with pytest.raises(ValueError, match="m: settings must be tried with one seed in common, got none"):
        picked([runs[0], runs[2]])


def test_measures_are_means_over_seeds_of_each_prompt() -> None:
    """bnf on p: 1, 1; on q: 1, 0, so 0.75 of instructions; against the base's 0 on p it wins twice, against its 1 on q
    it ties and loses: 1 and 0.25. Mean squares of its passes are 0.25 of prompts, of runs and of the rest, so the
    mean's variance is 0.25 / 4, with the one degree of freedom of two runs: 0.75 +- 12.706 / 4. Its lengths differ by
    run alone: 25 +- 12.706 * 5."""
    scores = by_prompt(picked(RECORDS))
    assert scores["instructions"]["bnf"].to_numpy().tolist() == [[1.0, 1.0], [1.0, 0.0]]
    assert scores["instructions"]["Base"].to_numpy().tolist() == [[0.0], [1.0]]
    assert scores["win rate"]["bnf"].to_numpy().tolist() == [[1.0, 1.0], [0.5, 0.0]]
    assert scores["win rate"]["Base"].to_numpy().tolist() == [[0.5], [0.5]]
    assert scores["reasoning"]["dpo"].to_numpy().tolist() == [[0.0]]
    assert scores["other instructions"]["bnf"].to_numpy().tolist() == [[0.0, 1.0]]
    assert scores["length"]["bnf"].to_numpy().tolist() == [[20.0, 30.0]] * 2
    assert scores["length, kept out"]["bnf"].to_numpy().tolist() == [[20.0, 30.0]] * 2
    tidy = means(scores).set_index(["method", "metric"])
    assert tidy.loc[("bnf", "instructions"), "score"] == 0.75
    ends = [0.75 - 12.7062 / 4, 0.75 + 12.7062 / 4]
    assert tidy.loc[("bnf", "instructions"), ["low", "high"]].tolist() == pytest.approx(ends, abs=1e-3)
    ends = [25 - 12.7062 * 5, 25 + 12.7062 * 5]
    assert tidy.loc[("bnf", "length"), ["low", "high"]].tolist() == pytest.approx(ends, abs=1e-3)
    assert tidy.loc[("dpo", "length"), ["low", "high"]].tolist() == [40.0, 40.0], "one run, so prompts alone"
    ends = [0.5 - 12.7062 / 2, 0.5 + 12.7062 / 2]
    assert tidy.loc[("bnf", "other instructions"), ["low", "high"]].tolist() == pytest.approx(ends, abs=1e-3)
    assert tidy.loc[("dpo", "reasoning"), ["low", "high"]].isna().all(), "one prompt of one run"
    assert by_seed(scores, "instructions").loc["bnf"].tolist() == [1.0, 0.5]
    assert tidy.loc[("dpo", "length"), "n"] == 2
    shown = texts(means(scores))
    assert list(shown.index) == ["Base", "bnf", "dpo"]
    assert shown.loc["bnf", "instructions"] == "0.75 [-2.43, 3.93]"


def test_samples_share_prompts_between_measures_and_methods() -> None:
    """The win rate of dpo is 0.5 + half of what it passes more than the base, in every sample; bnf's lengths of both
    groups of prompts are of the same runs."""
    drawn = resampled(by_prompt(picked(RECORDS)))
    lead = drawn["instructions"]["dpo"] - drawn["instructions"]["Base"]
    np.testing.assert_allclose(drawn["win rate"]["dpo"], 0.5 + lead / 2)
    np.testing.assert_allclose(drawn["length"]["bnf"], drawn["length, kept out"]["bnf"])


def test_intervals_hold_prompts_and_seeds() -> None:
    """Tables of 100 prompts and 3 runs: a part of each prompt, of each run, and noise. The mean variance of samples is
    that of means over many such tables; drawn without stretching, the runs' part would be a third too small."""
    rng = np.random.default_rng(0)
    columns = pd.MultiIndex.from_product([["m"], range(3)], names=["method", "seed"])
    found, means_of = [], []
    for seed in range(400):
        values = rng.normal(size=(100, 1)) + 0.3 * rng.normal(size=(1, 3)) + 0.1 * rng.normal(size=(100, 3))
        means_of.append(values.mean())
        found.append(resampled({"x": pd.DataFrame(values, columns=columns)}, seed, 200)["x"]["m"].var())
    truth = 1 / 100 + 0.3**2 / 3
    assert np.var(means_of) == pytest.approx(truth, rel=0.2)
    assert np.mean(found) == pytest.approx(truth, rel=0.1)


def test_percentiles_of_three_runs_are_too_narrow_and_t_is_not() -> None:
    """Where runs alone vary: 0.81 and 0.95 of the 95 % intervals hold the truth, which is 0."""
    rng = np.random.default_rng(0)
    columns = pd.MultiIndex.from_product([[f"m{i}" for i in range(2000)], range(3)], names=["method", "seed"])
    tables = {"x": pd.DataFrame(np.repeat(rng.normal(size=(1, 6000)), 2, axis=0), columns=columns)}
    low, high = np.quantile(resampled(tables, resamples=1000)["x"], [0.025, 0.975], axis=0)
    assert np.mean((low < 0) & (high > 0)) == pytest.approx(0.81, abs=0.02)
    found = means(tables)
    assert np.mean((found["low"] < 0) & (found["high"] > 0)) == pytest.approx(0.95, abs=0.02)


def test_the_order_of_tables_is_the_results() -> None:
    """The base first, though it passes least; instructions: bnf 0.75, dpo 1; lengths: 25 and 40, the base's 10."""
    assert list(by_result(picked(RECORDS))) == ["Base", "dpo", "bnf"]
    longer = [*RECORDS[:4], run("dpo", 1, 1, [1, 0], [1, 1, 0, 0], 24)]
    assert list(by_result(picked(longer), "length")) == ["Base", "bnf", "dpo"]


def test_win_rates_by_hand() -> None:
    """bnf's two runs: p is won twice, q is tied and lost; dpo's: p is won, q tied. The base does not fight itself."""
    table = win_rates(picked(RECORDS))
    assert list(table.index) == ["bnf", "dpo"]
    assert table.loc["bnf", ["won", "tied", "comparisons"]].tolist() == ["0.50", "0.25", 4]
    assert table.loc["bnf", "win rate"] == "0.62"
    assert table.loc["dpo", ["won", "tied", "win rate"]].tolist() == ["0.50", "0.50", "0.75"]
    assert 0 < float(table.loc["dpo", "at equal lengths"].split()[0]) < 1


def test_every_run_against_the_base() -> None:
    """bnf's picked setting, second seed: p up, q down; r as before. Its first setting lost q and r."""
    table = tradeoff(RECORDS).set_index(["method", "setting", "seed"])
    assert table.loc[("bnf", 2, 2)].tolist() == [2e-4, True, 0.0, 0.0]
    assert table.loc[("bnf", 1, 1)].tolist() == [1e-4, False, -0.5, -1.0]
    assert len(table) == 5


def test_what_cannot_be_compared_is_refused() -> None:
    for table in (lambda: by_prompt(picked(RECORDS[1:])), lambda: tradeoff(RECORDS[1:]), lambda: win_rates({})):
        with pytest.raises(ValueError, match="runs must hold the method 'Base'"):
            table()
    fewer = run("kto", None, 1, [1], [1], 5)
    for table in (by_prompt, win_rates):
        with pytest.raises(ValueError, match="kto: prompts must be the base's"):
            table(picked([*RECORDS, fewer]))
    second = run("dpo", 1, 2, [1, 1], [1], 5)
    with pytest.raises(ValueError, match="dpo: prompts must be the base's"):
        by_prompt(picked([*RECORDS, second]))
