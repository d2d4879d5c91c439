"""The suite of multiple choice: both sides score the same questions, and come to the same."""

import json
import statistics
from pathlib import Path

import pytest
from support.benchmark_rows import ROWS
from support.turns import Few

from lightning_bnf.costs.bench import choices
from lightning_bnf.costs.bench.workers import Over

pytestmark = pytest.mark.slow
STORED = Path(__file__).parents[3] / "notebooks/results/bench/choices.json"


def test_both_pass_as_many_of_the_questions(tmp_path, tiny_folder, monkeypatch):
    files = {}
    for task in ("bnf_commonsense_qa", "bnf_openbookqa"):
        files[task] = str(tmp_path / f"{task}.jsonl")
        Path(files[task]).write_text("".join(json.dumps(row) + "\n" for row in ROWS[task]))
    monkeypatch.setattr(choices, "ROWS", 3)
    told = []
    for variant in choices.variants(tiny_folder, files)[0]:
        turns = Few(1)
        with pytest.raises(Over):
            variant.contest(turns, **variant.arguments)
        told += [(turn["passed"], turn["which"]) for turn in turns.told]
    assert told[0] == told[1]


def test_the_stored_run_passed_the_same_rows_and_took_less():
    harness, shared = json.loads(STORED.read_text())["rows"]
    assert harness["which"] == shared["which"]
    assert statistics.median(harness["cpu_seconds"]) > 2 * statistics.median(shared["cpu_seconds"])
