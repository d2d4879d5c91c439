"""The run that lies in the folder of a new one: what the new one reads there stays where it is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from support.commands import refused

from lightning_bnf.cli.main import main
from lightning_bnf.cli.run_before import moved_aside
from lightning_bnf.cli.trainer_commands import TrainerCommand

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


def test_a_config_of_ones_own_in_the_folder_goes_aside_with_it(tmp_path: Path, config: Config) -> None:
    run = tmp_path / "run"
    main(["fit", "--config", config(trainer__max_epochs=1)])
    own = run / "own.yaml"
    shutil.copy(run / "config.yaml", own)
    main(["fit", "--config", str(own)])
    assert (tmp_path / "run.1/own.yaml").exists()
    assert not own.exists()
    assert (run / "policy").is_dir()


def test_texts_that_name_nothing_are_no_places_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long, and where the folder is the one that the command runs in."""
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.chdir(run)
    model = Namespace(loss="bnf", prompt="Be kind. " * 600)
    assert moved_aside(run, Namespace(model=model, data=Namespace(train=None))) == tmp_path / "run.1"
