"""The matrix of runs: order, results, skipping what is done, failures with the run's own last words."""

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from jsonargparse import Namespace

from lightning_bnf.callbacks import run_report
from lightning_bnf.callbacks.run_plots import RunPlots
from lightning_bnf.cli.main import main
from lightning_bnf.cli.trainer_commands import Fit
from lightning_bnf.reproduction import runs as reproduction
from lightning_bnf.reproduction import scores as matrix
from lightning_bnf.reproduction.runs import Method, Run, expanded, read_results, run_matrix
from lightning_bnf.runtime import slowness
from lightning_bnf.runtime.fingerprints import file_fingerprint
from lightning_bnf.runtime.processes import cores

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FRONTIER = ROOT / "configs/reproduce/frontier_small.yaml"
PICKED = [
    path
    for path in sorted((ROOT / "configs/reproduce").glob("*.yaml"))
    if not {"stages", "table4"} & yaml.safe_load(path.read_text()).keys()
]
"""The matrices without stages."""


def fake_train(base: Path, run: Run, folder: Path, threads: int | None) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": run.seed}))
    (folder / "fingerprints.json").write_text(json.dumps({"model": "0123"}))
    (folder / "data_report.txt").write_text("[train] 5 rows\n")
    (folder / "displacement.json").write_text(json.dumps({"measured": [{"step": 0, "chosen": -1.0}]}))


def test_every_method_gets_one_seed_first_and_done_runs_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []

    def train(base: Path, run: Run, folder: Path, threads: int | None) -> None:
        order.append(run.name)
        fake_train(base, run, folder, threads)

    monkeypatch.setattr(reproduction, "train", train)
    arguments: dict[str, Any] = {
        "base": Path("c.yaml"),
        "methods": {"a": Method(), "b": Method({"x": 1})},
        "output": tmp_path / "out",
    }
    run_matrix(**arguments, seeds=[1, 2], work=tmp_path / "work")
    assert order == ["a_seed1", "b_seed1", "a_seed2", "b_seed2"]
    assert "4 runs of some 5 minutes, 0 done\nabout 20 minutes to go" in capsys.readouterr().out
    (tmp_path / "out/b_seed1.json").unlink()
    (tmp_path / "out/other_seed1.json").write_text("{}")
    run_matrix(**arguments, seeds=[1, 2], work=tmp_path / "work2")
    assert order[4:] == ["b_seed1"]
    assert "3 done\nabout 5 minutes to go" in capsys.readouterr().out
    (tmp_path / "out/other_seed1.json").unlink()
    results = read_results(tmp_path / "out")
    assert [(found["method"], found["seed"]) for found in results] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert results[0]["results"]["displacement"]["measured"] == [{"step": 0, "chosen": -1.0}]
    assert results[3]["config"] == {"seed_everything": 2}
    assert results[3]["fingerprints"] == {"model": "0123"}
    assert set(results[0]["versions"]) == {"lightning_bnf", "torch", "transformers", "lightning", "peft"}


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"accelerator": "cpu", "precision": "bf16-mixed"}, True),
        ({"accelerator": "cpu", "precision": "32-true"}, False),
        ({"accelerator": "cpu"}, False),
        ({"accelerator": "cuda", "precision": "bf16-mixed"}, False),
        ("cpu", False),
        (None, False),
    ],
)
def test_before_hours_are_told_a_cpu_that_is_slow_in_the_configs_precision_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trainer: Any, said: bool
) -> None:
    monkeypatch.setattr(slowness, "bfloat16_slowness", lambda: 30.2)
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump({"trainer": trainer} if trainer else ["no mapping"]))
    run_matrix(base, {"a": Method()}, tmp_path / "out", [1], tmp_path / "work", dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 runs of some 5 minutes, 0 done"
    assert [line.startswith("precision bf16-mixed: this CPU takes about 30 times") for line in lines[:-1]] == [
        True
    ] * said


def test_the_best_of_a_grid_on_validation_prompts_gets_the_other_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of b's three settings the second and the third pass 3 of 4 greedy ones, the first 1: the second is kept. Sampled
    completions, of which all pass with the first setting, do not count, nor do those of kept-out families."""
    order: list[tuple[str, Any]] = []

    def train(base: Path, run: Run, folder: Path, threads: int | None) -> None:
        order.append((run.name, run.settings.get("lr")))
        fake_train(base, run, folder, threads)
        count = {1: 1, 2: 3, 3: 3, None: 0}[run.settings.get("lr")]
        trained = {"decoding": "greedy", "groups": ["trained", "sums"]}
        greedy = [trained | {"passed": i < count} for i in range(4)]
        greedy += [{"decoding": "greedy", "groups": ["kept-out", "x"], "passed": run.settings.get("lr") == 1}] * 9
        sampled = [{"decoding": "sampled", "groups": ["trained", "sums"], "passed": run.settings.get("lr") == 1}] * 4
        (folder / "scores.json").write_text(json.dumps({"validation": greedy + sampled}))

    monkeypatch.setattr(reproduction, "train", train)
    methods = {"a": Method(), "b": Method({"x": 0}, [{"lr": 1}, {"lr": 2}, {"lr": 3}]), "c": Method(once=True)}
    run_matrix(Path("c.yaml"), methods, tmp_path / "out", [1, 2], tmp_path / "work")
    first = [("a_seed1", None), ("b_setting1_seed1", 1), ("b_setting2_seed1", 2), ("b_setting3_seed1", 3)]
    assert order == [*first, ("c_seed1", None), ("a_seed2", None), ("b_setting2_seed2", 2)]
    shown = capsys.readouterr().out
    assert "7 runs of some 5 minutes, 0 done" in shown
    assert "b: setting 2 of 3 passes most validation prompts (0.750)" in shown


def test_workers_run_at_a_time_and_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two runs waits until the other has begun: one after the other they would wait for ever. What is picked
    from a grid waits for all of it."""
    together = threading.Barrier(2, timeout=300)
    order: list[str] = []

    def train(base: Path, run: Run, folder: Path, threads: int | None) -> None:
        assert threads == max(1, cores() // 2)
        together.wait()
        order.append(run.name)
        fake_train(base, run, folder, threads)
        passed = {"decoding": "greedy", "groups": ["trained", "sums"], "passed": True}
        (folder / "scores.json").write_text(json.dumps({"validation": [passed]}))

    monkeypatch.setattr(reproduction, "train", train)
    methods = {"a": Method(), "b": Method({}, [{"lr": 1}, {"lr": 2}, {"lr": 3}])}
    run_matrix(Path("c.yaml"), methods, tmp_path / "out", [1, 2], tmp_path / "work", workers=2)
    first = {"a_seed1", "b_setting1_seed1", "b_setting2_seed1", "b_setting3_seed1"}
    assert set(order[:4]) == first
    assert set(order[4:]) == {"a_seed2", "b_setting1_seed2"}


@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_failure_no_run_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """With two workers the second run fails while the first is under way, which waits until that is known and goes on
    to its end."""
    begun: list[str] = []
    queues: list[Any] = []
    first = threading.Event()
    last = ["a_seed1", "b_seed1"][workers - 1]

    class Seen(reproduction._Queue):
        def __init__(self, *args: Any) -> None:
            queues.append(self)
            super().__init__(*args)

    def train(base: Path, run: Run, folder: Path, threads: int | None) -> None:
        begun.append(run.name)
        if run.name == "a_seed1":
            first.set()
        if run.name == last:
            assert first.wait(300)
            raise ValueError(f"{run.name}: failed")
        assert queues[0].failed.wait(300)
        fake_train(base, run, folder, threads)

    monkeypatch.setattr(reproduction, "_Queue", Seen)
    monkeypatch.setattr(reproduction, "train", train)
    methods = {name: Method() for name in "abcdefgh"}
    with pytest.raises(ValueError, match=f"{last}: failed"):
        run_matrix(Path("c.yaml"), methods, tmp_path / "out", [1], tmp_path / "work", workers=workers)
    assert set(begun) == {"a_seed1", last}  # in either order: the threads begin at once
    assert len(begun) == workers
    assert len(list((tmp_path / "out").glob("*.json"))) == workers - 1


def test_threads_reach_the_run(tmp_path: Path) -> None:
    """A run that only says what it was given: its config is no file, so it ends at once, but with its environment."""
    seen: list[dict[str, str]] = []

    def begin(command: list[str], env: dict[str, str], **_: Any) -> Mock:
        seen.append(env)
        return Mock(wait=lambda: 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", begin)
        reproduction.train(Path("c.yaml"), Run("a", None, {}, 1), tmp_path / "one", 3)
        reproduction.train(Path("c.yaml"), Run("a", None, {}, 1), tmp_path / "two", None)
    assert seen[0]["OMP_NUM_THREADS"] == "3"
    assert seen[1].get("OMP_NUM_THREADS") == os.environ.get("OMP_NUM_THREADS")


def test_a_grid_without_scores_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduction, "train", fake_train)
    with pytest.raises(ValueError, match=r"b: base must be a config with .* ScorePrompts, .* got one without"):
        run_matrix(Path("c.yaml"), {"b": Method({}, [{"lr": 1}, {"lr": 2}])}, tmp_path / "out", [1], tmp_path / "work")


def test_a_failing_run_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)a_seed1: the run ended with status 2; see .*a_seed1.log:.*nowhere.yaml"):
        run_matrix(tmp_path / "nowhere.yaml", {"a": Method()}, tmp_path / "out", [1], tmp_path / "work")
    assert not list((tmp_path / "out").iterdir())


def test_nothing_to_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="methods and seeds must be one or more of each"):
        run_matrix(Path("c.yaml"), {}, tmp_path, [1])
    with pytest.raises(ValueError, match=r"seeds must be different, got \[1, 1\]"):
        run_matrix(Path("c.yaml"), {"a": Method()}, tmp_path, [1, 1])
    with pytest.raises(ValueError, match="methods 'a': grid must be of one setting with once, got 2"):
        run_matrix(Path("c.yaml"), {"a": Method({}, [{}, {}], once=True)}, tmp_path, [1])
    with pytest.raises(ValueError, match="workers must be >= 1, got 0"):
        run_matrix(Path("c.yaml"), {"a": Method()}, tmp_path, [1], workers=0)


@pytest.mark.parametrize("path", PICKED, ids=lambda path: path.stem)
def test_shipped_matrices_run(tmp_path: Path, tiny_folder: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first trained run of each matrix for real, on a tiny model, and what is kept of it; of all other methods a
    step; and the other points of their grids, which differ in numbers, are built."""
    monkeypatch.chdir(ROOT)
    matrix = yaml.safe_load(path.read_text())
    small = {"model.policy.init_args.source": tiny_folder, "trainer.limit_train_batches": 2}
    if "table" in path.stem:
        small |= {"trainer.callbacks.init_args.trained_prompts": 2, "trainer.callbacks.init_args.kept_out_prompts": 1}
    runs, points = [], []
    for method in matrix["methods"].values():
        first, *others = (small | method.get("settings", {}) | point for point in method.get("grid", [{}]))
        runs.append(first)
        points += others
    config = tmp_path / "matrix.yaml"
    trained = next(settings for settings in runs if settings["trainer.limit_train_batches"])
    changed = {"methods": {"first": {"settings": trained}}, "seeds": [1]}
    folders = {"output": str(tmp_path / "out"), "work": str(tmp_path / "work")}
    config.write_text(yaml.safe_dump(matrix | changed | folders))
    main(["reproduce", "--config", str(config)])
    (result,) = read_results(tmp_path / "out")
    assert {"displacement", "scores"} & set(result["results"])
    assert result["config"]["trainer"]["limit_train_batches"] == 2
    monkeypatch.setattr(run_report, "write_report", Mock())  # half of such a run is drawing
    monkeypatch.setattr(RunPlots, "on_fit_end", Mock())
    rest = [settings for settings in runs if settings is not trained]
    for i, settings in enumerate([*rest, *points]):
        if i == len(rest):
            monkeypatch.setattr(Fit, "run", lambda self: None)
        words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        root = ["--trainer.default_root_dir", str(tmp_path / str(i)), "--trainer.callbacks", "null"]
        main(["fit", "--config", str(matrix["base"]), *words, *root, "--trainer.limit_train_batches", "1"])


def test_the_frontiers_first_run_is_measured_and_the_others_settings_are_taken(
    tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """BNF's first run, on few rows; of every twelfth method the settings."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", str(tmp_path / "cache"))
    matrix = yaml.safe_load(FRONTIER.read_text())
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "The ship left the harbour at noon."}\n')
    rows: dict[str, Any] = {"choices": "[]", "prose": str(texts), "pair_rows": 4, "prompt_rows": 2, "verified_rows": 6}
    rows["samples"] = str(tmp_path / "samples.json")
    small = {"model.policy.init_args.source": tiny_folder, "trainer.limit_train_batches": 4}
    small |= {"model.optimization.max_grad_norm": None}
    small |= {f"trainer.callbacks.init_args.rows.{name}": value for name, value in rows.items()}
    first = {"settings": matrix["methods"]["BNF"]["settings"] | small}
    folders = {"output": str(tmp_path / "out"), "work": str(tmp_path / "work")}
    config = tmp_path / "matrix.yaml"
    stages = {"one": {"methods": ["first"], "seeds": [1]}}
    config.write_text(yaml.safe_dump(matrix | {"methods": {"first": first}, "stages": stages} | folders))
    main(["reproduce", "--config", str(config)])
    (result,) = read_results(tmp_path / "out")
    assert [point["step"] for point in result["results"]["likelihood"]["points"]] == [1, 2, 4]
    last = result["results"]["likelihood"]["points"][-1]["values"]
    assert (len(last["kl_own"]), len(last["passes"]) + len(last["passes_kept_out"])) == (2, 6)
    assert result["config"]["model"]["optimization"]["max_grad_norm"] is None, "null arrives as it is"
    for method in list(matrix["methods"].values())[::12]:
        settings = method["settings"] | method.get("grid", [{}])[0]
        with pytest.raises(SystemExit) as stop:
            main([*reproduction.fit_words(matrix["base"], settings), "--print_config"])
        assert not stop.value.code, capsys.readouterr().err
        if "data.train" in settings:
            assert Path(settings["data.train"]).is_file()


def test_settings_are_typed_so_that_fit_reads_the_same() -> None:
    """null as null and true as true; a class path, which the parser holds in a namespace, as a mapping."""
    spec = Namespace(class_path="X", init_args=Namespace(beta=None))
    words = reproduction.fit_words(Path("base.yaml"), {"a": None, "b": True, "c": "configs/x.yaml", "d": spec, "e": 2})
    expected = {"a": "null", "b": "true", "c": "configs/x.yaml"}
    expected |= {"d": '{"class_path": "X", "init_args": {"beta": null}}', "e": "2"}
    assert words == ["fit", "--config", "base.yaml", *(w for name, v in expected.items() for w in (f"--{name}", v))]


def test_configs_take_up_what_the_stored_results_picked() -> None:
    """Table 6's learning rate and the models of Figures 3 and 4 are what the validation prompts of Table 4 picked."""
    picked = matrix.picked(read_results(ROOT / "notebooks/results/table4_small"))
    (rate,) = {
        method["settings"]["model.optimization.learning_rate"]
        for method in yaml.safe_load((ROOT / "configs/reproduce/table6_small.yaml").read_text())["methods"].values()
    }
    assert rate == picked["BNF"][0]["config"]["model"]["optimization"]["learning_rate"]
    policies = yaml.safe_load((ROOT / "configs/analyze/table4_small.yaml").read_text())["policies"]
    for method, folder in policies.items():
        first = picked[method][0]
        assert Path(folder).parts[-2] == f"{method}_setting{first['setting']}_seed{first['seed']}"


def test_finished_runs_with_other_settings_or_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with lr 1 and steps 5, on a file: the same is skipped; another grid point, base, list or file is refused.
    What the run's own settings replace is not looked for in the base: a whole part of it (beta) or a number (lr)."""
    base, data = tmp_path / "base.yaml", tmp_path / "rows.jsonl"

    def train(base: Path, run: Run, folder: Path, threads: int | None) -> None:
        fake_train(base, run, folder, threads)
        made = {"lr": 1.0, "steps": 5, "loss": {"class_path": "BNF", "beta": 7}, "calls": [{"n": 1}]}
        config = {"seed_everything": 1, "data": {"seed": 1, "path": str(data)}, "a": made}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "fingerprints.json").write_text(json.dumps({str(data): file_fingerprint(data)}))

    def go(lr: float = 1, steps: int = 5, rows: str = "rows", path: Path = data, calls: int = 1) -> None:
        shared = {"steps": steps, "lr": 9.0, "loss": {"beta": 8}, "calls": [{"n": calls}]}
        base.write_text(yaml.safe_dump({"a": shared, "data": {"path": str(path)}}))
        data.write_text(rows)
        settings = {"a.lr": lr, "a.loss": "bnf.yaml"}
        run_matrix(base, {"m": Method(settings)}, tmp_path / "out", [1], tmp_path / "work")

    monkeypatch.setattr(reproduction, "train", train)
    go()
    go()
    with pytest.raises(
        ValueError, match=r"output must be another folder, .* got .*m_seed1.json, made with a.lr 1.0, not 2"
    ):
        go(lr=2)
    with pytest.raises(ValueError, match=r"made with a.steps 5, not 6"):
        go(steps=6)
    with pytest.raises(ValueError, match=r"made with a.calls.0.n 1, not 2"):
        go(calls=2)
    with pytest.raises(ValueError, match=r"made with data.path '.*rows.jsonl', not 'other.jsonl'"):
        go(path=Path("other.jsonl"))
    with pytest.raises(ValueError, match=r"made with other contents of .*rows.jsonl"):
        go(rows="other rows")


@pytest.mark.parametrize("path", PICKED, ids=lambda path: path.stem)
def test_stored_results_are_those_of_the_shipped_matrices(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the stored results as output nothing is left to run, and no setting or data file differs."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(reproduction, "train", lambda *_: pytest.fail("there is a run to be done"))
    stored = ROOT / "notebooks/results" / Path(yaml.safe_load(path.read_text())["output"]).name
    main(["reproduce", "--config", str(path), "--output", str(stored)])


def test_a_table_and_a_scale_are_short_for_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = str(ROOT / "configs/reproduce/table4_small.yaml")
    assert expanded(["table4", "--scale", "small", "--seeds", "[1]"]) == ["--config", small, "--seeds", "[1]"]
    assert expanded(["table4"]) == ["--config", small]
    assert expanded(["collapse"]) == ["--config", str(ROOT / "configs/reproduce/collapse.yaml")]
    assert expanded(["--config", "x.yaml"]) == ["--config", "x.yaml"]
    with pytest.raises(
        ValueError,
        match=r"reproduce must be one of collapse, .*, got table9 --scale small",
    ):
        expanded(["table9"])


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"folder must be one that `reproduce` has written to, got .*nothing without results"
    ):
        read_results(tmp_path / "nothing")
