"""The bench: turns, failures, what the variants compute, and the file it writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_bnf.cli.main import main
from lightning_bnf.costs.bench import heads
from lightning_bnf.costs.bench.run import SUITES, bench
from lightning_bnf.costs.bench.workers import Variant
from lightning_bnf.results.plots import plot_bench

pytestmark = pytest.mark.slow


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
    accepted = "head, step, layouts, scaling, loader, plan, peers, choices, cli"
    assert f"suites must be of {accepted}, got 'feet'" in capsys.readouterr().err
