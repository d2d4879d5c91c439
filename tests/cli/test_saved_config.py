"""What is kept of a config: all of it, flat for loggers, without secrets; and whose config one is."""

from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from lightning_bnf.cli.saved_config import flattened, masked, run_of
from lightning_bnf.cli.words import options
from lightning_bnf.runtime.ownership import claim


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("api_key", "abc", "***"),
        ("hf_token", "abc", "***"),
        ("password", "abc", "***"),
        ("client_secret", "abc", "***"),
        ("token", None, None),
        ("key", "", ""),
        ("max_tokens", 4096, 4096),
        ("max_tokens", "auto", "auto"),
        ("tokenizer", "./folder", "./folder"),
        ("api_key_variable", "SERVER_KEY", "SERVER_KEY"),
        ("keyboard", "abc", "abc"),
        ("url", "https://user:word@host:80/v1", "https://***@host:80/v1"),
        ("url", "https://host/v1?mail=a@b", "https://host/v1?mail=a@b"),
    ],
)
def test_secrets_are_masked_and_nothing_else(key: str, value: Any, kept: Any) -> None:
    config = Namespace()
    config[f"model.{key}"] = value
    assert masked(config)[f"model.{key}"] == kept
    assert config[f"model.{key}"] == value, "what is run is not changed"


def test_secrets_are_masked_at_any_depth() -> None:
    logger = Namespace(class_path="wandb", init_args=Namespace(api_key="abc", name="n"))
    config = Namespace(trainer=Namespace(logger=[logger]), headers={"Authorization": "Bearer x", "other": ["y"]})
    config.secret = {"a": ["b", 3]}
    kept = masked(config)
    assert kept.trainer.logger[0] == Namespace(class_path="wandb", init_args=Namespace(api_key="***", name="n"))
    assert kept.headers == {"Authorization": "***", "other": ["y"]}
    assert kept.secret == {"a": ["***", 3]}
    assert logger.init_args.api_key == "abc"


def test_settings_are_flattened_to_the_keys_that_are_typed() -> None:
    nested = {
        "model": {"loss": {"class_path": "BNF"}},
        "betas": [0.9, 0.99],
        "callbacks": [{"class_path": "A"}],
        "x": None,
    }
    assert flattened(nested) == {
        "model.loss.class_path": "BNF",
        "betas": [0.9, 0.99],
        "callbacks.0.class_path": "A",
        "x": None,
    }


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was written into runs/latest and lies in runs/old now, beside configs of the user's own."""
    monkeypatch.chdir(tmp_path)
    run = Path("runs/old")
    claim("folder", run, "fit")
    for name in ("config.yaml", "config_test.yaml", "mine.yaml"):
        (run / name).write_text("trainer: {default_root_dir: runs/latest}")
    Path("config.yaml").write_text("trainer: {max_epochs: 2}")
    Path("named.yaml").write_text("trainer: {default_root_dir: runs/mine}")
    return run


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("--config runs/old/config.yaml", True),
        ("-c runs/old/config_test.yaml", True),
        ("--config=runs/old/config.yaml --config config.yaml --trainer.max_epochs 3", True),
        ("--config named.yaml --config runs/old/config.yaml", True),
        ("--config runs/old/config.yaml --config named.yaml", False),
        ("--config runs/old/config.yaml --trainer.default_root_dir runs/latest", False),
        ("--trainer.default_root_dir=null --config runs/old/config.yaml", False),
        ("--config runs/old/mine.yaml", False),
        ("--config named.yaml", False),
        ("--config config.yaml", False),
        ("--trainer.max_epochs 2", False),
    ],
)
def test_a_saved_config_stands_for_the_folder_that_it_lies_in(moved: Path, typed: str, found: bool) -> None:
    words = options("export", typed.split())
    assert run_of("export", words, "last") == (moved if found else None)


@pytest.mark.parametrize(
    ("ckpt_path", "begins"),
    [
        (None, True),
        ("runs/latest/checkpoints/step=2.ckpt", True),
        ("last", False),
        ("runs/old/checkpoints/step=2.ckpt", False),
        ("runs/old/mine/step=2.ckpt", False),
    ],
)
def test_a_fit_without_a_checkpoint_of_the_run_is_another_run(moved: Path, ckpt_path: str, begins: bool) -> None:
    words = options("fit", ["--config", "runs/old/config.yaml"])
    assert run_of("fit", words, ckpt_path) == run_of("plan", words, ckpt_path) == (None if begins else moved)
    assert run_of("test", words, ckpt_path) == moved, "what is measured is written beside its config"


def test_a_copy_without_hidden_files_is_a_run_by_its_metrics(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("trainer: {default_root_dir: null}")
    words = options("export", ["--config", str(config)])
    assert run_of("export", words, "last") is None
    (tmp_path / "metrics.csv").write_text("step\n")
    assert run_of("export", words, "last") == tmp_path


def test_a_config_in_the_current_folder_stands_for_a_folder_with_a_name(
    moved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that begins anew in it is moved aside by that name."""
    here = moved.resolve()
    monkeypatch.chdir(here)
    assert run_of("fit", options("fit", ["--config", "config.yaml"]), "last") == here
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    assert run_of("fit", options("fit", ["--config", "../config.yaml"]), "last") == here
