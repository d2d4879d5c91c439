"""The bench: turns, failures, what the variants compute, and the file it writes."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import two_processes

from lightning_bnf.cli.main import main
from lightning_bnf.costs.bench import data, heads, peers, plans, steps
from lightning_bnf.costs.bench.run import SUITES, bench, table
from lightning_bnf.costs.bench.workers import Over, Turns, Variant, compete
from lightning_bnf.results.line import Line
from lightning_bnf.results.plots import plot_bench, scaling_line


class Few(Turns):
    """So many turns in this process, and what was told at their ends."""

    def __init__(self, turns: int):
        self.left = turns
        self.told: list[dict[str, float]] = []

    def wait(self) -> None:
        if not self.left:
            raise Over
        self.left -= 1
        self.started = time.perf_counter()

    def done(self, **more: float) -> None:
        self.told.append({"seconds": time.perf_counter() - self.started, **more})


def test_a_contest_takes_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    group = [
        Variant("s", "c", name, two_processes.sleeper, {"seconds": seconds, "log": log})
        for name, seconds in (("quick", 0.01), ("slow", 0.1))
    ]
    compete(group, repeats=2, warmups=1, threads=1)
    assert (tmp_path / "log").read_text().split() == ["0.01", "0.1"] * 3
    assert [len(variant.seconds) for variant in group] == [2, 2]
    assert min(group[1].seconds) > max(group[0].seconds)
    assert all(variant.peak_bytes >= variant.resting_bytes > 10**7 for variant in group)
    assert "slow" in table(group)


def test_rounds_start_everybody_anew_in_another_order(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    group = [
        Variant("s", "c", str(seconds), two_processes.sleeper, {"seconds": seconds, "log": log})
        for seconds in (0.01, 0.02)
    ]
    compete(group, repeats=1, warmups=1, threads=1, rounds=2)
    assert (tmp_path / "log").read_text().split() == ["0.01", "0.02"] * 2 + ["0.02", "0.01"] * 2
    assert [len(variant.seconds) for variant in group] == [2, 2]
    assert [variant.row()["rounds"] for variant in group] == [2, 2]


def test_a_variant_that_fails_is_named_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)s, c, broken: .*no luck"):
        compete([Variant("s", "c", "broken", two_processes.fails)], repeats=1, threads=1)


@pytest.mark.parametrize("kind", ["ours", "recomputed", "listing", "products:8"])
def test_every_way_through_the_head_runs(kind: str) -> None:
    turns = Few(2)
    with pytest.raises(Over):
        heads.contest(turns, kind, 20, 6, 30, True, "cpu", "float32")
    assert len(turns.told) == 2


def test_the_papers_listing_and_ours_have_the_same_gradient() -> None:
    """With Eq. 4's sign: what is compared in speed is the same computation."""
    grads = []
    for run in (heads.ours, heads.listing):
        problem = heads.Problem(30, 8, 40, True, "cpu", torch.float64)
        run(problem)()
        grads.append((problem.hidden.grad, problem.weight.grad))
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)  # the listing computes in float32


def test_the_bare_products_are_those_of_the_head() -> None:
    """With logits as the gradient of logits: hidden states get z W, the weight z^T h."""
    problem = heads.Problem(20, 6, 30, True, "cpu", torch.float64)
    run = heads.products(problem, 8)
    run()
    cells = {name: cell.cell_contents for name, cell in zip(run.__code__.co_freevars, run.__closure__ or ())}
    hidden, weight = problem.hidden.detach(), problem.weight.detach()
    logits = hidden @ weight.T
    torch.testing.assert_close(cells["grad_hidden"], logits @ weight)
    torch.testing.assert_close(cells["grad_weight"], logits.T @ hidden)


def test_our_steps_run_under_lightnings_trainer(tmp_path: Path, tiny_folder: str) -> None:
    workload = steps.Workload(tiny_folder, rows=8, pairs=2, max_tokens=700)
    told = {}
    for loss in ("BNF", "FineTuning"):
        turns = Few(3)
        with pytest.raises(Over):
            steps.ours(turns, workload, loss, {}, "cache" if loss == "BNF" else "auto", str(tmp_path))
        told[loss] = turns.told
    assert [set(turn) for turn in told["BNF"]] == [{"seconds", "before_optimizer", "loss", "tokens"}] * 3
    assert all(0 < turn["before_optimizer"] <= turn["seconds"] for turn in told["BNF"])
    assert told["FineTuning"][0]["loss"] > told["BNF"][0]["loss"], "fine-tuning adds what BNF subtracts"


def test_token_counts_are_those_of_the_steps_micro_batches(tiny_folder: str) -> None:
    workload = steps.Workload(tiny_folder, rows=6, pairs=3, max_tokens=10_000)
    counts = steps.token_counts(workload, 2)
    assert len(counts) == 2
    turns = Few(3)
    with pytest.raises(Over):
        steps.ours(turns, workload, "FineTuning", {}, "auto", "")
    assert [turn["tokens"] for turn in turns.told[:2]] == [sum(tokens for tokens, _ in step) for step in counts]
    assert all(step and 0 < scored < tokens for step in counts for tokens, scored in step)
    padded = steps.token_counts(replace(workload, layout="padded"), 1)
    assert sum(tokens for tokens, _ in counts[0]) < sum(tokens for tokens, _ in padded[0]), "prompts are there once"
    assert sum(scored for _, scored in counts[0]) == sum(scored for _, scored in padded[0])
    turns = Few(1)
    with pytest.raises(Over):
        steps.linear_products(turns, workload)


@pytest.mark.parametrize(("trainer", "precomputed"), [("DPO", False), ("DPO", True), ("KTO", False), ("SFT", False)])
def test_trls_steps_run(tiny_folder: str, trainer: str, precomputed: bool) -> None:
    turns = Few(2)
    with pytest.raises(Over):
        peers.trl(turns, steps.Workload(tiny_folder, rows=4, pairs=2), trainer, precomputed)
    assert len(turns.told) == 2


def test_a_case_is_planned_and_measured(tmp_path: Path, tiny_folder: str) -> None:
    """Of a tiny model the process itself is nearly all: the two peaks are of one size."""
    case = plans.cases(tiny_folder, "cpu")["full, cached reference, DPO, 1024 tokens"]
    peaks = []
    for contest in (plans.planned, plans.measured):
        turns = Few(1)
        with pytest.raises(Over):
            contest(turns, case, str(tmp_path))
        peaks.append(turns.told[0]["peak_bytes"])
        if contest is plans.planned:
            assert {"weights (float32)", "activations", "beside_tensors"} < set(turns.told[0])
    assert 0.5 < peaks[0] / peaks[1] < 2


def test_rows_have_the_lengths_that_are_said() -> None:
    rows = data.pairs(64)
    assert rows == data.pairs(64)
    assert all(40 <= len(row["prompt"].split()) <= 160 for row in rows)
    assert all(20 <= len(row[side].split()) <= 120 for row in rows for side in ("chosen", "rejected"))
    assert [row["label"] for row in data.unpaired(rows)[:4]] == [True, False, True, False]


def test_every_suite_names_its_variants(tiny_folder: str) -> None:
    for name, make in SUITES.items():
        groups = make(tiny_folder, "cache", "cpu")
        assert groups
        assert {variant.suite for group in groups for variant in group} == {name}


def test_the_command_writes_json_and_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def small(source: str, cache: str, device: str) -> list[list[Variant]]:
        sizes = {"tokens": 20, "hidden": 6, "vocabulary": 30, "train_head": True, "device": "cpu", "dtype": "float32"}
        return [[Variant("head", "small", "BNF, fused", heads.contest, {"kind": "ours"} | sizes)]]

    monkeypatch.setitem(SUITES, "head", small)
    bench(["head"], repeats=2, threads=1, json_file=tmp_path / "x/head.json", plot_file=tmp_path / "head.png")
    assert "BNF, fused" in capsys.readouterr().out
    record = json.loads((tmp_path / "x/head.json").read_text())
    assert {"machine", "versions", "commit", "date", "threads", "rows"} <= set(record)
    (row,) = record["rows"]
    assert (row["suite"], row["case"], row["variant"], len(row["seconds"])) == ("head", "small", "BNF, fused", 2)
    assert (tmp_path / "head.png").stat().st_size > 1000
    assert len(plot_bench([row, row | {"case": "other"}]).axes) == 4
    with pytest.raises(SystemExit):
        main(["bench", "--suites", "[feet]"])
    assert "suites 'feet': accepted are head, step, layouts, scaling, plan, peers" in capsys.readouterr().err


def test_the_line_of_scaling() -> None:
    """2 s and 3 ms a token; a fourth time that is a third too long pulls the line, and is missed by most."""
    line = Line.through([1000, 2000, 8000], [5.0, 8.0, 26.0])
    assert (line.fixed, line.per_token) == (pytest.approx(2), pytest.approx(0.003))
    assert line.misses == pytest.approx(0, abs=1e-9)
    assert str(line) == "2.00 s + 3.00 ms a token (misses by 0.0 % at most)"
    tokens, seconds = [1000.0, 2000.0, 4000.0, 8000.0], [5.0, 8.0, 14 * 4 / 3, 26.0]
    found = Line.through(tokens, seconds)

    def errors(fixed: float, per_token: float) -> list[float]:
        return [(fixed + per_token * x) / y - 1 for x, y in zip(tokens, seconds)]

    best = sum(error**2 for error in errors(found.fixed, found.per_token))
    for fixed, slope in ((0.01, 0.0), (-0.01, 0.0), (0.0, 1e-5), (0.0, -1e-5)):
        assert sum(error**2 for error in errors(found.fixed + fixed, found.per_token + slope)) > best
    assert found.misses == pytest.approx(max(map(abs, errors(found.fixed, found.per_token))))
    with pytest.raises(ValueError, match=r"accepted are three points or more"):
        Line.through([1.0, 2.0], [1.0, 2.0])


def test_scaling_is_drawn_against_tokens() -> None:
    """Medians of each case's turns, with the line through them."""
    rows = [
        {"suite": "scaling", "case": "c", "variant": str(n), "tokens": [n, n, 9 * n], "peak_bytes": 10**9}
        | {"seconds": [2 + 0.003 * n, 2 + 0.003 * n, 99.0]}
        for n in (1000, 2000, 8000)
    ]
    assert scaling_line([*rows, rows[0] | {"suite": "step", "seconds": [1.0]}]).misses == pytest.approx(0, abs=1e-9)
    left, right = plot_bench(rows).axes
    assert left.get_legend().get_texts()[0].get_text().startswith("2.00 s + 3.00 ms a token")
    assert left.get_xlabel() == right.get_xlabel() == "tokens a step"
