"""Class paths of configs and flags: no code but the package's, its libraries' and what the user names is run."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import refused

from lightning_bnf.cli.main import main

TOUCH = {"args": "touch HACKED", "shell": True}
SPIES = {
    "subprocess.Popen": TOUCH,
    "os.system": {"command": "touch HACKED"},
    "builtins.exec": {"source": "open('HACKED', 'w')"},
    "functools.partial": {"func": "os.system"},
    "transformers.utils.import_utils.os.system": {"command": "touch HACKED"},
    "lightning_bnf.runtime.files.shutil.rmtree": {"path": "."},
    "spy.Spy": {},
}
FIELDS = ("model.loss", "model.policy", "model.optimizer", "trainer.callbacks", "trainer.logger", "trainer.plugins")


@pytest.fixture(autouse=True)
def _spied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the working folder that leaves a file where it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "spy", raising=False)
    Path("spy.py").write_text("open('HACKED', 'w')\nclass Spy: ...\n")


@pytest.mark.parametrize("path", SPIES)
@pytest.mark.parametrize("field", FIELDS)
def test_no_field_makes_what_is_none_of_ours(
    field: str, path: str, config: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    spec: Any = {"class_path": path, "init_args": SPIES[path]}
    named = config(**{field.replace(".", "__"): [spec] if field == "trainer.callbacks" else spec})
    shown = refused(capsys, "fit", "--config", named)
    assert "must be of lightning_bnf, torch.optim" in shown or "no attribute" in shown, shown
    assert not Path("HACKED").exists()


def test_nothing_deeper_in_a_config_is_made_either(
    config: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A term of a sum of losses, and an argument that is no class by its annotation."""
    popen = {"class_path": "subprocess.Popen", "init_args": TOUCH}
    loss = {"class_path": "lightning_bnf.losses.Sum", "init_args": {"terms": [{"loss": popen, "weight": 1.0}]}}
    assert "got subprocess.Popen" in refused(capsys, "fit", "--config", config(model__loss=loss))
    scoring = {"class_path": "lightning_bnf.callbacks.ScorePrompts", "init_args": {"splits": popen}}
    refused(capsys, "fit", "--config", config(trainer__callbacks=[scoring]))
    prepare = {"model": "none", "prompts": popen, "scorer": popen, "output": "out"}
    Path("prepare.yaml").write_text(yaml.safe_dump(prepare))
    assert "got subprocess.Popen" in refused(capsys, "prepare", "--config", "prepare.yaml")
    assert not Path("HACKED").exists()


def test_a_format_by_class_path_is_refused_alike(
    config: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = refused(capsys, "fit", "--config", config(), "--data.options.format", "spy.Spy")
    assert "got spy.Spy; if you know and trust that code, allow it by adding: --allow spy" in shown
    assert not Path("HACKED").exists()


def test_the_word_that_a_refusal_gives_lets_the_module_in(
    config: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """And for that command alone."""
    typed = ["fit", "--config", config(), "--model.loss", "spy.Spy"]
    word = refused(capsys, *typed).partition("adding: ")[2].splitlines()[0].split()
    assert word == ["--allow", "spy"]
    assert "must be of lightning_bnf" not in refused(capsys, *typed, *word), "it is imported, and is no loss"
    assert Path("HACKED").exists()
    assert "--allow spy" in refused(capsys, *typed)


def test_a_mistyped_file_is_no_module_to_be_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = refused(capsys, "fit", "--model.loss", "nowhere.ymal")
    assert "--allow" not in shown
    assert "a YAML file or a class path" in shown


def test_what_is_allowed_is_said_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert "--allow MODULE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--data null", "data must be a YAML file, or be set by its own settings, --data.NAME VALUE, got null"),
        ("--model.optimization null", "model.optimization must be a YAML file, or be set by its own settings,"),
        ("--trainer.detect_anomaly x", "trainer.detect_anomaly must be of type bool, got x"),
        ("--seed_everything=-1", "seed_everything must be in [0, 4294967295], got -1"),
        ("--seed_everything 4294967296", "seed_everything must be in [0, 4294967295], got 4294967296"),
    ],
)
def test_a_value_of_another_type_is_one_sentence(words: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = refused(capsys, "fit", "--model.source", "none", *words.split())
    assert sentence in shown
    assert len(shown.splitlines()) == 3, "what loads, the sentence, and where more is said"


def test_a_file_of_plain_lines_stands_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    """To YAML the lines of this CSV are one string, which took the place of the file's name."""
    Path("mine.csv").write_text("prompt,chosen,rejected\nWhat is 1 + 1?,2.,3.\nWhat is 1 + 2?,3.,4.\n")
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--data.train", "mine.csv", "--model.source", "any", "--print_config"])
    assert not ended.value.code
    assert yaml.safe_load(capsys.readouterr().out)["data"]["train"] == "mine.csv"
