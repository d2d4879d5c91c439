"""Steps as the bench times them."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.turns import Few

from lightning_bnf.costs.bench import steps
from lightning_bnf.costs.bench.workers import Over

pytestmark = pytest.mark.slow


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
