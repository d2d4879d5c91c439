"""The bench: suites, failures, what a run goes on from, and the files it writes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.turns import here

from lightning_bnf.cli.main import main
from lightning_bnf.costs.bench import heads, run
from lightning_bnf.costs.bench.run import NEEDED_GPUS, SUITES, Place, bench
from lightning_bnf.costs.bench.workers import Turns, Variant
from lightning_bnf.results.plots import plot_bench
from lightning_bnf.runtime.refusal import Refusal

pytestmark = pytest.mark.slow


def test_every_suite_names_its_variants(tiny_folder: str) -> None:
    for name, make in SUITES.items():
        groups = make(Place(tiny_folder, "cache", "cpu", rehearse=name in NEEDED_GPUS))
        assert groups
        assert {variant.suite for group in groups for variant in group} == {name}
        names = [(variant.case, variant.name) for group in groups for variant in group]
        assert len(set(names)) == len(names), "a run goes on by them"


def breaks(turns: Turns) -> None:
    raise ValueError("no luck")


def test_a_run_goes_on_where_one_ended_and_names_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Two groups, of which one fails the first time: the second run measures that one alone."""
    sizes = {"tokens": 20, "hidden": 6, "vocabulary": 30, "train_head": True, "device": "cpu", "dtype": "float32"}
    contests: dict[str, Any] = {"good": heads.contest, "bad": breaks}
    asked: list[str] = []

    def small(place: Place) -> list[list[Variant]]:
        arguments = {
            "good": {"kind": "ours"} | sizes,
            "bad": {} if contests["bad"] is breaks else {"kind": "ours"} | sizes,
        }
        return [[Variant("head", case, "BNF", contests[case], arguments[case])] for case in ("bad", "good")]

    def compete(group: list[Variant], *rest: Any) -> None:
        asked.append(group[0].case)
        here(group, *rest)

    monkeypatch.setitem(SUITES, "head", small)
    monkeypatch.setattr(run, "compete", compete)
    files = {name: tmp_path / f"x/head.{name.removesuffix('_file')}" for name in ("json_file", "markdown_file")}
    with pytest.raises(SystemExit) as stop:
        bench(["head"], repeats=2, threads=1, **files)
    assert stop.value.code == 1
    assert "failed: 1 of 2: head, bad, BNF" in capsys.readouterr().out
    assert "| bad | BNF | failed |  | ValueError: no luck |" in files["markdown_file"].read_text()
    contests["bad"] = heads.contest
    bench(["head"], repeats=2, threads=1, plot_file=tmp_path / "head.png", **files)
    assert asked == ["bad", "good", "bad"]
    record = json.loads(files["json_file"].read_text())
    assert {"machine", "versions", "commit", "date", "threads", "settings", "rows"} <= set(record)
    assert {(row["case"], len(row["seconds"])) for row in record["rows"]} == {("bad", 2), ("good", 2)}
    assert not any("error" in row for row in record["rows"])
    assert (tmp_path / "head.png").stat().st_size > 1000
    row = record["rows"][0]
    assert len(plot_bench([row, row | {"case": "other"}]).axes) == 4
    with pytest.raises(Refusal, match=r"json_file must be a new file, or .*of which settings are others"):
        bench(["head"], repeats=3, threads=1, **files)
    assert json.loads(files["json_file"].read_text()) == record


def test_suites_that_cannot_be_measured_are_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--suites", "[feet]"])
    accepted = "head, step, layouts, scaling, loader, plan, peers, choices, answers, cli, gpu, node"
    assert f"suites must be of {accepted}, got 'feet'" in capsys.readouterr().err
    with pytest.raises(Refusal, match="rehearse must be false with suites other than gpu and node, got 'head'"):
        bench(["head"], rehearse=True)
    there = torch.cuda.device_count()
    for name, needed in NEEDED_GPUS.items():
        if there < needed:
            with pytest.raises(
                Refusal, match=f"suites must be without {name} on a machine with fewer than {needed} GPUs"
            ):
                bench([name])
