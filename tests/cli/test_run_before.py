"""The run that lies in the folder of a new one: what the new one reads there stays where it is."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from support.commands import refused

from lightning_bnf.cli.main import main
from lightning_bnf.cli.run_before import give_back, leave_files, moved_aside, set_aside
from lightning_bnf.cli.trainer_commands import TrainerCommand
from lightning_bnf.cli.words import Option
from lightning_bnf.runtime.refusal import Refusal

pytestmark = pytest.mark.slow

Config = Callable[..., str]


def files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("model.source", "policy"),
        ("model.policy.adapter", "policy"),
        ("data.train", "pairs.jsonl"),
        ("data.test", "pairs.jsonl"),
    ],
)
def test_a_run_that_reads_what_the_last_one_left_does_not_move_it_aside(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str], key: str, place: str
) -> None:
    """Such as going on from its policy with another loss: refused, with a folder to name, before anything is moved."""
    run = tmp_path / "run"
    file = config(trainer__max_epochs=1)
    main(["fit", "--config", file])
    shutil.copy(yaml.safe_load(Path(file).read_text())["data"]["train"], run / "pairs.jsonl")
    before = files(run)
    told = refused(capsys, "fit", "--config", file, f"--{key}", str(run / place))
    written = key.replace("policy.", "policy.init_args.")
    assert f"trainer.default_root_dir must be another folder than that of {written} {run / place}, got {run}" in told
    assert f"--trainer.default_root_dir {tmp_path / 'run_next'}" in told
    assert files(run) == before
    assert not (tmp_path / "run.1").exists()


def test_a_new_run_of_a_saved_config_leaves_it_to_the_other_processes(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They read it when the folder that it lay in has another name already."""
    run = tmp_path / "run"
    main(["fit", "--config", config(trainer__max_epochs=1)])
    saved, seen = (run / "config.yaml").read_text(), []
    make, folder = TrainerCommand.instantiate_trainer, run / "config.yaml"

    def built(command: TrainerCommand, **kwargs: object) -> Trainer:
        trainer = make(command, **kwargs)
        seen.append(folder.read_text())
        return trainer

    monkeypatch.setattr(TrainerCommand, "instantiate_trainer", built)
    main(["fit", "--config", str(folder)])
    assert seen == [saved]
    assert (tmp_path / "run.1" / "config.yaml").read_text() == saved


def test_a_config_of_ones_own_in_the_folder_stays_beside_the_one_that_goes_aside(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other processes read it, and who types the command again; where the new run is refused all is as it was."""
    run = tmp_path / "run"
    main(["fit", "--config", config(trainer__max_epochs=1)])
    own, loss = run / "own.yaml", run / "losses/mine.yaml"
    shutil.copy(run / "config.yaml", own)
    loss.parent.mkdir()
    loss.write_text("class_path: lightning_bnf.DPO\n")
    before = files(run)
    typed = ["fit", "--config", str(own), "--model.loss", str(loss)]
    refused(capsys, *typed, "--data.train", str(tmp_path / "none.jsonl"))
    assert files(run) == before
    for number in (1, 2):
        main(typed)
        assert own.exists()
        assert (tmp_path / f"run.{number}/own.yaml").exists()
        assert (run / "policy").is_dir()


def setting(folder: Path, **model: Any) -> Namespace:
    callback = Namespace(class_path="lightning_bnf.callbacks.DisplacementAlarm", init_args=Namespace(held_out=None))
    return Namespace(model=Namespace(**model), data=Namespace(train=None), trainer=Namespace(callbacks=[callback]))


def test_what_is_read_in_the_folder_is_found_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a callback of ours, from the home folder, or by way of a link that leads elsewhere."""
    run, elsewhere = tmp_path / "run", tmp_path / "big"
    for folder in (run, elsewhere):
        folder.mkdir()
    (run / "held.jsonl").touch()
    (run / "policy").symlink_to(elsewhere)
    monkeypatch.setenv("HOME", str(tmp_path))
    by_callback = setting(run)
    by_callback.trainer.callbacks[0].init_args.held_out = str(run / "held.jsonl")
    for config, named in (
        (by_callback, f"DisplacementAlarm.held_out {run}/held.jsonl"),
        (setting(run, source="~/run/policy"), "model.source ~/run/policy"),
        (setting(run, source=str(run / "policy")), f"model.source {run}/policy"),
    ):
        with pytest.raises(Refusal, match=re.escape(f"must be another folder than that of {named}, got {run}")):
            moved_aside(run, config)
    assert run.is_dir()
    by_callback.trainer.callbacks[0].class_path = "mine.Writes"  # of which nobody knows what it does there
    assert moved_aside(run, by_callback) == tmp_path / "run.1"


def test_files_get_their_places_again_however_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With detours, and twice."""
    run = tmp_path / "run"
    (run / "own").mkdir(parents=True)
    for name in ("config.yaml", "own/loss.yaml"):
        (run / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    aside = set_aside(run)
    run.mkdir()
    named = {"config": "run/../run/config.yaml", "model.loss": str(tmp_path / "link/run/own/loss.yaml")}
    typed = [Option(key, (value,)) for key, value in (*named.items(), ("data", "run/own/loss.yaml"))]
    left = leave_files(run, aside, typed)
    assert left == [run / "config.yaml", run / "own/loss.yaml"]
    assert [path.read_text() for path in left] == ["config.yaml", "own/loss.yaml"]
    (run / "metrics.csv").touch()
    give_back(run, aside, left)
    assert [path.exists() for path in (*left, aside)] == [True, True, True], "a run that has begun keeps its config"
    (run / "metrics.csv").unlink()
    give_back(run, aside, left)
    assert files(run).keys() == {Path("config.yaml"), Path("own/loss.yaml")}
    assert not aside.exists()


def test_after_the_refusal_the_folder_is_free(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where whoever called holds the error, as a notebook does."""
    run, file = tmp_path / "run", config(trainer__max_epochs=1)
    main(["fit", "--config", file])
    with pytest.raises(SystemExit) as held:
        main(["fit", "--config", file, "--model.source", str(run / "policy")])
    main(["fit", "--config", file])
    assert held.value.code == 2
    assert (tmp_path / "run.1").is_dir()


@pytest.mark.parametrize("name", [".", ".."])
def test_a_folder_without_a_name_is_not_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    with pytest.raises(Refusal, match="must be called by its name, to be moved aside, got"):
        moved_aside(Path(name), setting(Path(name)))


def test_texts_that_name_nothing_are_no_places_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long, and where the folder is the one that the command runs in."""
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.chdir(run)
    model = Namespace(loss="bnf", prompt="Be kind. " * 600)
    empty = Namespace(model=model, data=Namespace(train=None), trainer=Namespace(callbacks=None))
    assert moved_aside(run, empty) == tmp_path / "run.1"
