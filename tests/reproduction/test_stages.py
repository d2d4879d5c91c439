"""Stages of a matrix: order, hours, power."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_bnf.evaluation.statistics.paired import Components
from lightning_bnf.evaluation.statistics.power import smallest_difference
from lightning_bnf.reproduction import runs as reproduction
from lightning_bnf.reproduction.runs import Method, Run, run_matrix
from lightning_bnf.reproduction.stages import Expected, Stage, first_seed, forecast, in_order, power_lines
from lightning_bnf.runtime.refusal import Refusal

STAGES = {"first": Stage(["base", "a"], [1]), "all": Stage(["base", "a", "b"], [1, 2])}


def test_a_stage_holds_what_no_stage_before_has_seed_by_seed():
    """Method a has two points; base is run once."""

    def runs_of(method, seed):
        return ["base"] if method == "base" else [f"{method}{point} {seed}" for point in (1, 2)]

    assert in_order(STAGES, ["base", "a", "b"], runs_of) == {
        "first": ["base", "a1 1", "a2 1"],
        "all": ["b1 1", "b2 1", "a1 2", "a2 2", "b1 2", "b2 2"],
    }
    assert first_seed(STAGES) == 1


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        (Stage(["c"], [1]), "stages 'x': methods must be of a, b, got 'c'"),
        (Stage(["a"], [1, 1]), "methods and different seeds must be one or more of each"),
        (Stage([], [1]), "methods and different seeds must be one or more of each"),
    ],
)
def test_stages_of_nothing_are_refused(stage, sentence):
    with pytest.raises(Refusal, match=sentence):
        in_order({"x": stage}, ["a", "b"], lambda method, seed: [method])


def test_the_forecast_is_of_what_is_left():
    """Four runs, one done: 3 x 6 minutes, two at a time, are 0.15 hours."""
    assert forecast({"first": 1, "all": 3}, {"first": 1, "all": 0}, 6.0, 2) == [
        "a run takes 6.0 minutes; 4 runs in all, 0.2 hours to go",
        "stage first: 1 runs, 1 done, 0.0 hours to go",
        "stage all: 3 runs, 0 done, 0.2 hours to go",
    ]


def test_power_is_said_of_the_stages_with_several_seeds():
    """Without any variance everything is seen; more seeds see less than fewer do."""
    some = Expected(100, 0.02, 0.001, 0.1)
    (none, line) = power_lines(
        {"none": Expected(100, 0, 0, 0), "choices": some}, STAGES | {"c": Stage(["a"], [1, 2, 3])}
    )
    assert none == "none (100 rows): differences from 0.000 with 2 seeds, 0.000 with 3 seeds are seen"
    seen = [float(part.split(" with")[0]) for part in line.partition("from ")[2].split(", ")]
    assert seen[0] > seen[1] > 0
    own = [
        smallest_difference(100, 3, Components(0.02, 0.001, 0.1), level=level, by_seeds=True) for level in (0.05, 0.01)
    ]
    assert seen[1] == pytest.approx(own[0], abs=5e-4)
    assert Expected(100, 0.02, 0.001, 0.1, level=0.01).seen(3) == own[1] > own[0]


def test_a_matrix_of_stages_runs_in_their_order_and_goes_on(tmp_path: Path, monkeypatch, capsys):
    order: list[str] = []

    def train(base: Path, run: Run, folder: Path, threads: int | None) -> None:
        order.append(run.name)
        folder.mkdir(parents=True)
        for name in ("config.yaml", "fingerprints.json", "data_report.txt"):
            (folder / name).write_text("{}\n")
        (folder / "likelihood.json").write_text('{"points": []}')

    monkeypatch.setattr(reproduction, "train", train)
    rates: list[dict[str, Any]] = [{"lr": 1}, {"lr": 2}]
    methods = {"base": Method(once=True), "a": Method(grid=rates), "b": Method()}
    arguments: dict[str, Any] = {"base": Path("c.yaml"), "methods": methods, "output": tmp_path / "out"}
    run_matrix(**arguments, stages=STAGES, work=tmp_path / "work", dry_run=True)
    assert not order
    assert "a run takes 5.0 minutes; 7 runs in all, 0.6 hours to go" in capsys.readouterr().out
    run_matrix(**arguments, stages=STAGES, work=tmp_path / "work")
    assert order[:3] == ["base_seed1", "a_setting1_seed1", "a_setting2_seed1"]
    assert set(order[3:]) == {"b_seed1", "a_setting1_seed2", "a_setting2_seed2", "b_seed2"}
    assert "stage first is whole" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/b_seed2.json").read_text())["results"]["likelihood"] == {"points": []}
    (tmp_path / "out/b_seed1.json").unlink()
    run_matrix(**arguments, stages=STAGES, work=tmp_path / "work2")
    assert order[7:] == ["b_seed1"]
    with pytest.raises(Refusal, match="seeds must be given, or stages, got both or neither"):
        run_matrix(**arguments)
