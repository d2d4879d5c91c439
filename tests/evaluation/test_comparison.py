"""Before and after on hand-made completions."""

import json

import pytest

from lightning_bnf.evaluation.comparison import (
    Snapshot,
    as_json,
    choose,
    compare,
    falls_of_kept_out,
    rates_table,
    samples,
    side_by_side,
    table,
)
from lightning_bnf.evaluation.pass_rates import Record, VerifiedPrompt, pass_rates


def prompt(name: str, family: str, kept_out: bool = False) -> VerifiedPrompt:
    return VerifiedPrompt(name, family, [1], {"name": "question"}, 8, kept_out)


PROMPTS = [
    *(prompt(f"a{i}", "a") for i in range(4)),
    prompt("b0", "b"),
    *(prompt(f"k{i}", "k", True) for i in range(2)),
]


def snapshot(passed: set[str], length: int, chosen: list[float]) -> Snapshot:
    records = [
        Record(p.prompt_id, p.groups, way, p.prompt_id, 0.0, p.prompt_id in passed, length, True)
        for way in ("greedy", "sampled")
        for p in PROMPTS
    ]
    return Snapshot(records, chosen, [-2.0] * len(chosen))


def test_families_take_turns() -> None:
    assert [p.prompt_id for p in choose(PROMPTS, 3, 1)] == ["a0", "b0", "a1", "k0"]
    assert len(choose(PROMPTS, None, None)) == len(PROMPTS)


def test_lines_by_hand() -> None:
    before, after = snapshot({"a0", "k0"}, 10, [-1.0, -3.0]), snapshot({"a0", "a1", "b0"}, 6, [-0.5, -2.5])
    lines = {line.measure: line for line in compare(before, after)}
    rate = lines["pass rate, trained families, sampled"]
    assert (rate.n, rate.before, rate.after, rate.change) == pytest.approx((5, 0.2, 0.6, 0.4))
    assert rate.low <= 0.4 <= rate.high
    kept = lines["pass rate, kept-out families, greedy"]
    assert (kept.before, kept.after) == (0.5, 0.0)
    falls = falls_of_kept_out(list(lines.values()))
    assert falls == {f"pass rate, kept-out families, {way}": pytest.approx(-kept.low) for way in ("greedy", "sampled")}
    chosen = lines["mean log-prob of chosen (nats a token)"]
    assert (chosen.n, chosen.before, chosen.after, chosen.low, chosen.high) == (2, -2.0, -1.5, 0.5, 0.5)
    assert lines["mean log-prob of rejected (nats a token)"].change == 0
    assert lines["response length, trained families, sampled (tokens)"].change == -4


def test_without_pairs_there_are_no_log_probs() -> None:
    assert not any("log-prob" in line.measure for line in compare(snapshot(set(), 1, []), snapshot(set(), 1, [])))


def test_tables_are_markdown() -> None:
    lines = compare(snapshot(set(), 10, [-1.0]), snapshot({"a0"}, 10, [-0.5]))
    rows = table(lines).splitlines()
    assert len({len(row) for row in rows}) == 1
    assert "| +0.20" in rows[3]
    assert json.loads(as_json(lines, {"steps": 3}))["settings"] == {"steps": 3}
    assert "| trained  | greedy" in rates_table(pass_rates(snapshot({"a0"}, 10, []).records))


def test_completions_stand_side_by_side() -> None:
    before, after = snapshot({"a0"}, 1, []), snapshot(set(), 1, [])
    texts = {p.prompt_id: p.prompt_id.upper() for p in PROMPTS}
    first = json.loads(side_by_side(texts, before, after).splitlines()[0])
    assert (first["prompt"], first["before_passed"], first["after_passed"]) == ("A0", True, False)
    assert samples(texts, before, after, 1) == ["'A0'\n  before: 'a0'\n  after:  'a0'\n"]
