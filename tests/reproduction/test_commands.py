"""Commands in processes of their own, and the marks of finished steps."""

import os
from pathlib import Path

import pytest

from lightning_bnf.reproduction.commands import finish, finished, named_contents, run_command, typed
from lightning_bnf.runtime.refusal import Refusal


def test_a_step_is_done_with_its_settings_alone(tmp_path: Path) -> None:
    mark = tmp_path / "fit.json"
    assert finished(mark, "a") is None
    assert finish(mark, "a", {"minutes": 2}) == {"fingerprint": "a", "minutes": 2}
    assert finished(mark, "a") == {"fingerprint": "a", "minutes": 2}
    with pytest.raises(Refusal, match=r"output must be another folder, or .*fit\.json and what comes after it taken"):
        finished(mark, "b")


def test_contents_are_those_of_files_and_of_models_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file from here, from beside the config, or shipped; not of a folder that is named by chance, such as one
    that is written to; of a name on the hub, itself. A text that is too long for a path is none."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("a.jsonl", "same"), ("configs_here/loss.yaml", "same"), ("model/config.json", "{}")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    settings = {
        "data": {"train": ["a.jsonl", "none.jsonl"], "text": "x" * 10_000, "seed": 1},
        "model": {"loss": "loss.yaml", "policy": "configs/policy/lora.yaml", "reference_cache": "model"},
        "scorer": {"source": "model", "prompts.path": "owner/name"},
    }
    found = named_contents(settings, tmp_path / "configs_here")
    assert found.keys() == {"data.train.0", "model.loss", "model.policy", "scorer.source", "scorer.prompts.path"}
    assert found["data.train.0"] == found["model.loss"]
    assert [name for name, *_ in found["scorer.source"]] == ["config.json"]
    assert found["scorer.prompts.path"] == "owner/name"


def test_settings_are_typed_as_they_are_parsed() -> None:
    assert [typed("a.b", value) for value in ("x y", 1, None, ["x"], {"y": True})] == [
        ["--a.b", "x y"],
        ["--a.b", "1"],
        ["--a.b", "null"],
        ["--a.b", '["x"]'],
        ["--a.b", '{"y": true}'],
    ]


def test_a_command_that_fails_is_refused_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with pytest.raises(
        Refusal, match=r"mine: the run ended with status 2; see .*x\.log:\n(?s:.*)Every command explains"
    ):
        run_command(["nonsense"], log, os.environ, "mine")
    assert "there is no command 'nonsense'" in log.read_text()
