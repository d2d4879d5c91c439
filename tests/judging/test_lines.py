"""Numbers of pools, and what cannot be computed, with its reason."""

from collections.abc import Mapping
from typing import Any

import pytest

from lightning_bnf.judging.lines import Given, table
from lightning_bnf.judging.reading import Judged


def judged(benchmark: str, model: str, verdicts: list[Any], baseline: str = "b", **row: Any) -> Judged:
    """A question a verdict, in one order."""
    lines = []
    for i, value in enumerate(verdicts):
        said = (
            {"preference": value, "verdict": None}
            if isinstance(value, float)
            else {"preference": None, "verdict": value}
        )
        lines.append({"question": f"q{i:02}", "game": 0, "first": True, **said, "reason": None})
    rows: Mapping[str, Any] = {line["question"]: row for line in lines}
    return Judged(benchmark, "rules", model, baseline, "j", "own (lightning_bnf)", rows, lines)


def found(*all_of_them: Judged) -> dict[tuple[str, str], float]:
    return {(line.model, line.measure): round(line.value, 4) for line in table(all_of_them).lines}


LENGTHS = {"own_style": [9, 0, 0, 0], "base_style": [9, 0, 0, 0]}


def test_arena_hard() -> None:
    verdicts = ["A>>B", "A=B", "B>A", "A>B"] * 4
    without = table([judged("arena_hard_v0.1", "m", verdicts)])
    assert [(line.measure, line.value, line.n, line.pool) for line in without.lines] == [
        ("WR (%)", pytest.approx(75), 16, ("m",))
    ]
    assert any("no LC, which needs lengths in GPT-4o's tokens" in note for note in without.notes)
    assert any("not the benchmark's prompt" in note for note in without.notes)
    held = found(judged("arena_hard_v2", "m", verdicts, **LENGTHS))
    assert held["m", "score (%)"] == 75
    assert held["m", "style-controlled score (%)"] == pytest.approx(75, abs=0.01)
    assert set(found(judged("arena_hard_v0.1", "m", verdicts, **LENGTHS))) == {
        ("m", "WR (%)"),
        ("m", "LC (%), as published"),
        ("m", "LC (%), at equal lengths"),
    }


def test_wildbench() -> None:
    row = {"tags": ["Math"], "own_characters": 9}
    held = found(judged("wildbench", "m", ["8", "6"], "", **row), judged("wildbench", "n", ["5", "6"], "", **row))
    assert (held["m", "score"], held["m", "task macro (the paper's score)"]) == (40, 40)
    assert held["m", "Elo"] > 1000 > held["n", "Elo"]
    alone = table([judged("wildbench", "m", ["8", None], "", own_characters=9)])
    assert [line.measure for line in alone.lines] == ["score"]
    assert [note.split(": ")[1][:13] for note in alone.notes] == ["no task macro", "no Elo, which", "not the bench"]


def test_elo_starts_from_given_ratings() -> None:
    """A single tie: 1200 and 1000 move to each other by 4 (1 / (1 + 10^(-1/2)) - 1/2) = 1.0390."""
    pool = [judged("wildbench", name, ["6"], "", own_characters=9) for name in "mn"]
    lines = table(pool, Given(initial_elo={"m": 1200})).lines
    assert {line.model: line.value for line in lines if line.measure == "Elo"} == pytest.approx(
        {"m": 1198.9610, "n": 1001.0390}, abs=1e-4
    )
    with pytest.raises(ValueError, match=r"initial_elo must be of models of wildbench \(m, n\), got 'x'"):
        table(pool, Given(initial_elo={"x": 1200}))


def test_rewards_and_their_mixture() -> None:
    row = {"own_characters": 900, "base_characters": 100}
    held = found(
        judged("wildbench_pairs", "m", ["A++", "A+"], "weak", **row),
        judged("wildbench_pairs", "m", ["B++", "B+"], "strong", **row),
    )
    assert held["m", "reward, mixture, K 500"] == pytest.approx((50 - 75) / 2)


def test_pairs_whose_judge_always_prefers_the_first_are_told_apart_by_both_orders() -> None:
    """It says 0.9 and 0.8 for whatever is first: alone each order says nothing, together 0.9 beats 0.8. Three equal
    answers are ties, whatever their log-odds are rounded to."""
    lines = []
    for i, (own, base) in enumerate([(0.8, 0.9), *[(0.9, 0.8)] * 5, (0.7, 0.7), (0.84, 0.84), (0.856175, 0.856175)]):
        for game, sure in ((0, 1 - base), (1, own)):
            line = {"question": f"q{i}", "game": game, "first": game == 1, "verdict": None, "reason": None}
            lines.append(line | {"preference": 1 + sure})
    row: Mapping[str, Any] = {line["question"]: {"own_characters": 9, "base_characters": 9} for line in lines}
    one = Judged("pairs", "rules", "m", "b", "j", "letters (lightning_bnf)", row, lines)
    held = found(one)
    assert held["m", "win rate (%)"] == 50
    assert held["m", "win rate (%), both orders as one"] == pytest.approx(650 / 9, abs=1e-4)
    (told,) = table([one]).biases.values()
    assert told.first_wins is not None
    assert told.first_wins.value == 1


def test_alpaca_eval() -> None:
    row = {"own_characters": 9, "base_characters": 9}
    held = found(judged("alpaca_eval_2", "m", [1.5, 2.0, 1.25] * 5, **row))
    assert held["m", "win rate (%)"] == pytest.approx(175 / 3, abs=1e-4)
    assert ("m", "LC win rate (%)") in held


def test_a_model_twice_in_a_pool_is_refused() -> None:
    one = judged("wildbench", "m", ["8"], "", own_characters=9)
    with pytest.raises(ValueError, match="judgments must be of each model once, got m twice"):
        table([one, one])
