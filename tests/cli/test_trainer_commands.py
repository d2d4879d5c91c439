"""The commands that read a fit's config: their help, what they refuse before anything is touched, and their loggers."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, Logger
from support.commands import help_of, refused

from lightning_bnf.cli.commands import TRAINER_COMMANDS, imported
from lightning_bnf.cli.main import main
from lightning_bnf.cli.trainer_commands import TrainerCommand

Config = Callable[..., str]


@pytest.mark.parametrize("command", TRAINER_COMMANDS)
def test_help_says_the_commands_own_name_and_purpose(capsys: pytest.CaptureFixture[str], command: str) -> None:
    shown = help_of(capsys, command)
    assert shown.startswith(f"usage: python -m lightning_bnf {command} [--config FILE]")
    assert TRAINER_COMMANDS[command].summary in shown
    others = [summary for name, (_, summary, _) in TRAINER_COMMANDS.items() if name != command]
    assert not any(summary in shown for summary in [*others, "Perform one evaluation epoch", "Runs the full"])
    assert "The run folder: all of a run goes there; null is runs/latest." in shown or command == "plan"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "cache", "plan"])
def test_our_fields_come_before_lightnings(capsys: pytest.CaptureFixture[str], command: str) -> None:
    _, _, shown = help_of(capsys, command).partition(" options: ")
    places = [shown.index(f" --{name}") for name in ("model.policy", "data.train", "trainer.accelerator")]
    assert places == sorted(places)


@pytest.mark.slow
def test_help_imports_nothing_that_it_does_not_show() -> None:
    """Libraries that only a run needs, and that plain Lightning does not import either: seconds."""
    code = (
        "import sys; from lightning_bnf.cli.main import main\n"
        "try: main(['fit', '--help'])\n"
        "finally: print('imported:', *sorted({'bitsandbytes', 'trl', 'peft', 'datasets', 'pandas', 'lm_eval', "
        "'accelerate', 'transformers.modeling_utils'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("imported:\n"), run.stdout[-200:]


@pytest.mark.parametrize(
    "words",
    [["--data.trian", "x.jsonl"], ["--model.loss.init_args.normaliser", "response"], ["--trainer.max_epoch", "3"]],
)
def test_a_mistyped_field_is_refused_before_model_and_data_are_touched(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setattr(TrainerCommand, "before_instantiate_classes", lambda self: pytest.fail("it goes on"))
    assert "did you mean" in refused(capsys, "fit", "--config", config(), *words)


def test_help_is_shown_whatever_else_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--data.train", "/no/such.jsonl", "--help"])
    assert stop.value.code in (0, None)
    assert "usage: python -m lightning_bnf fit" in capsys.readouterr().out


@pytest.mark.slow
def test_the_config_that_a_fit_saves_is_read_by_every_command(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it lies there: --print_config prints what it was read as, alone on standard output, without hidden fields."""
    main(["fit", "--config", config(trainer__max_epochs=1), "--seed_everything", "2"])
    saved = tmp_path / "run" / "config.yaml"
    ours = yaml.safe_load(saved.read_text())
    assert ours["data"]["seed"] == 2
    for command in TRAINER_COMMANDS:
        capsys.readouterr()
        extra = ["--folder", "x", "--ckpt_path", "last"] if command == "export" else []
        with pytest.raises(SystemExit):
            main([command, "--config", str(saved), *extra, "--print_config"])
        read = yaml.safe_load(capsys.readouterr().out)
        for part in ("trainer",) if command == "export" else ("model", "data", "trainer"):
            assert read[part] == {name: ours[part][name] for name in read[part]}, command
            assert len(read[part]) >= 2, command


def seeds(monkeypatch: pytest.MonkeyPatch, command: str, *words: str) -> tuple[int, int]:
    """What everything random begins from, and the data's own seed, as a command goes on with them."""
    found: list[Any] = []

    def stop(self: TrainerCommand) -> None:
        found.extend((self.config["seed_everything"], self.config["data"].seed))
        raise SystemExit

    folder = ["--folder", "x"] if command == "export" else []
    with monkeypatch.context() as patched:
        patched.setattr(imported(TRAINER_COMMANDS[command].target), "before_instantiate_classes", stop)
        with pytest.raises(SystemExit):
            main([command, "--model.source", "x", *folder, *words])
    return found[0], found[1]


@pytest.mark.parametrize("command", TRAINER_COMMANDS)
def test_the_datas_seed_is_that_of_all_unless_it_is_named(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    assert seeds(monkeypatch, command) == (1, 1)
    assert seeds(monkeypatch, command, "--seed_everything", "3") == (3, 3)
    assert seeds(monkeypatch, command, "--seed_everything", "3", "--data.seed", "5") == (3, 5)


def test_a_seed_in_a_config_and_seeds_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a seed nothing is seeded, and the data are drawn as before; a rank takes the one its parent drew."""
    (tmp_path / "all.yaml").write_text("seed_everything: 4\n")
    (tmp_path / "data.yaml").write_text("seed: 6\n")
    given = ("--config", str(tmp_path / "all.yaml"))
    assert seeds(monkeypatch, "fit", *given) == (4, 4)
    assert seeds(monkeypatch, "fit", *given, "--data", str(tmp_path / "data.yaml")) == (4, 6)
    assert seeds(monkeypatch, "fit", *given, "--data.seed", "null") == (4, 4)
    assert seeds(monkeypatch, "fit", "--seed_everything", "false") == (False, 1)
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert seeds(monkeypatch, "fit", "--seed_everything", "true") == (7, 7)


def test_true_draws_a_seed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """For the data too; where ranks that are started by something else would each draw one it is refused."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    monkeypatch.setattr("secrets.randbelow", lambda below: below - 1)
    assert seeds(monkeypatch, "fit", "--seed_everything", "true") == (2**32 - 1, 2**32 - 1)
    monkeypatch.delenv("PL_GLOBAL_SEED")
    monkeypatch.setenv("LOCAL_RANK", "0")
    said = refused(capsys, "fit", "--model.source", "x", "--seed_everything", "true")
    assert "seed_everything must be a number where torchrun, srun or the like start the processes, got true" in said


class Kept(Logger):
    """A logger that keeps what it is told."""

    settings: dict[str, Any]
    metrics: list[str]

    def __init__(self, note: str = ""):
        super().__init__()
        Kept.settings, Kept.metrics = {}, []

    name = property(lambda self: "kept")
    version = property(lambda self: "0")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        Kept.settings |= params

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        Kept.metrics += metrics


def logger(kind: type, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}


@pytest.mark.slow
@pytest.mark.drawing
@pytest.mark.parametrize("kinds", ["none", "csv", "two"])
def test_a_run_leaves_the_same_whatever_logger_is_given(tmp_path: Path, config: Config, kinds: str) -> None:
    sys.modules.setdefault(Kept.__module__, sys.modules[__name__])
    beside = logger(CSVLogger, save_dir=str(tmp_path / "beside"), name="", version="")
    given = {"none": False, "csv": beside, "two": [logger(Kept, note="https://me:word@host"), beside]}[kinds]
    main(["fit", "--config", config(trainer__logger=given), "--allow", Kept.__module__])
    run = tmp_path / "run"
    for name in ("config.yaml", "metrics.csv", "plots/loss.png", "policy/README.md", "fingerprints.json"):
        assert (run / name).stat().st_size > 50, name
    assert not list(run.glob("events*"))
    assert not (run / "hparams.yaml").exists()
    if kinds == "none":
        assert not (tmp_path / "beside").exists()
        return
    with (run / "metrics.csv").open() as ours, (tmp_path / "beside" / "metrics.csv").open() as theirs:
        assert list(csv.DictReader(ours)) == list(csv.DictReader(theirs))
    if kinds == "two":
        assert "train/loss" in Kept.metrics
        assert Kept.settings["model.policy.init_args.r"] == 4
        assert Kept.settings["trainer.logger.0.init_args.note"] == "https://***@host"
        assert "me:word" not in (run / "config.yaml").read_text()


@pytest.mark.slow
def test_a_second_run_without_loggers_is_no_mixture(tmp_path: Path, config: Config) -> None:
    main(["fit", "--config", config(trainer__logger=False)])
    steps = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    main(["fit", "--config", config(trainer__logger=False, trainer__max_epochs=1)])
    assert sorted(path.name for path in (tmp_path / "run.1/checkpoints").iterdir()) == steps
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["step=2.ckpt"]


@pytest.mark.slow
def test_a_trial_run_leaves_the_run_that_is_there_alone(tmp_path: Path, config: Config) -> None:
    def files() -> dict[str, int]:
        paths = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != "data_report.txt"]
        return {str(path): path.stat().st_mtime_ns for path in paths}

    main(["fit", "--config", config(trainer__max_epochs=1)])
    held = files()
    main(["fit", "--config", config(), "--trainer.fast_dev_run", "1"])
    assert files() == held
    assert not (tmp_path / "run.1").exists()


@pytest.mark.parametrize(
    ("name", "install"),
    [("WandbLogger", "wandb>=0.12.10"), ("MLFlowLogger", "mlflow>=1.0.0"), ("CometLogger", "comet-ml")],
)
def test_a_logger_without_its_package_is_refused_with_the_command(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str], name: str, install: str
) -> None:
    message = refused(capsys, "fit", "--config", config(), "--trainer.logger", f"lightning.pytorch.loggers.{name}")
    assert f"trainer.logger lightning.pytorch.loggers.{name}: it needs a package that is not installed" in message
    assert f"pip install -U '{install}" in message
    assert not (tmp_path / "run").exists()


def test_a_logger_may_not_write_over_the_runs_metrics(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    given = logger(CSVLogger, save_dir=str(tmp_path / "run"), name="", version="")
    message = refused(capsys, "fit", "--config", config(trainer__logger=given))
    assert "would write over" in message
    assert "metrics.csv" in message


def test_a_callbacks_refusal_is_told_as_it_was_raised(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Not within a list of all the types that a value of trainer.callbacks could have."""
    plots = {"class_path": "lightning_bnf.callbacks.RunPlots", "init_args": {"window": 0}}
    message = refused(capsys, "fit", "--config", config(trainer__callbacks=[plots]))
    assert "\nerror: window 0" in message or "\nerror: window must be" in message
    assert "Subtypes" not in message
