"""What validate, test and predict measure, and where they leave it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.training import Write

from lightning_bnf.cli.main import main

Config = Callable[..., str]
pytestmark = pytest.mark.slow


def test_a_runs_own_config_measures_its_policy_and_not_the_one_before(
    tmp_path: Path,
    config: Config,
    write_pairs: Write,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    file = config(trainer__max_epochs=1, data__validation=write_pairs("v.jsonl"), data__test=write_pairs("t.jsonl"))
    main(["fit", "--config", file])
    run = tmp_path / "run"
    measured, saved = run / "validation_metrics.json", ["--config", str(run / "config.yaml")]

    def margin(*words: str) -> float:
        main(["validate", *words])
        return float(json.loads(measured.read_text())["val/rewards/margins"])

    assert margin(*saved, "--ckpt_path", "last") == margin(*saved) != 0.0
    assert f"validate: the policy of {run}/checkpoints/step=" in capsys.readouterr().out
    assert margin(*saved, "--ckpt_path", "base") == 0.0
    assert margin("--config", file) == 0.0, "a config that no run has saved says nothing of a run"
    said = capsys.readouterr().out
    assert said.count(f"before training; --ckpt_path last takes the latest checkpoint of {run}") == 2
    kept = [json.loads((run / f"validation_metrics.{i}.json").read_text()) for i in (1, 2, 3)]
    assert [one["ckpt_path"] == "base" for one in kept] == [False, False, True], "none is written over"
    elsewhere = ["--trainer.default_root_dir", str(tmp_path / "elsewhere")]
    with pytest.raises(SystemExit):
        main(["validate", *saved, *elsewhere])
    assert "or base for the policy before training, got last" in capsys.readouterr().err
    assert margin(*saved, "--ckpt_path", "base") == 0.0
    for words in ([], ["--ckpt_path", "base"]):
        main(["predict", *saved, *words])
    assert (run / "predictions_0.1.jsonl").is_file()
    assert (run / "predictions_0.jsonl").is_file()
    assert not [one for one in recwarn if "Please add the following callbacks" in str(one.message)]
