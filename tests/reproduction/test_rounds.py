"""Rounds around stages that are stood in for: which are run and how, which are skipped, and what ends them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.kills import staged

from lightning_bnf.reproduction import rounds as module
from lightning_bnf.reproduction.rounds import rounds
from lightning_bnf.runtime.refusal import Refusal

PREPARE = {"families": ["addition"], "train_prompts": 4, "test_prompts": 2}


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of every stage that was run; evaluations give half of the prompts as passed."""
    run: list[list[str]] = []

    def command(words: list[str], log_file: Path, environment: Any, name: str) -> None:
        run.append(list(words))
        staged(words, log_file, environment, name)

    monkeypatch.setattr(module, "run_command", command)
    monkeypatch.setattr(module, "_rates", lambda about, source, evaluated: rates(source))
    return run


def rates(source: str) -> list[dict[str, Any]]:
    rate = {"group": "trained", "decoding": "greedy", "n": 8, "rate": 0.5, "low": 0.2, "high": 0.8, "length": 7.0}
    return [rate | {"rate": 0.25 if source == "first" else 0.5}]


@pytest.fixture
def fit(tmp_path: Path) -> Path:
    path = tmp_path / "fit.yaml"
    path.write_text("{}")
    return path


def value(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_each_round_samples_and_trains_on_the_last_ones_policy(tmp_path: Path, fit: Path, stages: list[Any]) -> None:
    output = tmp_path / "out"
    rounds(output, fit, PREPARE, source="first", settings={"trainer.max_epochs": 2}, seed=3)
    assert [words[0] for words in stages] == ["prepare", "fit", "prepare", "fit"]
    given = [yaml.safe_load((output / f"round_{n}/prepare.yaml").read_text()) for n in (1, 2)]
    policy = str(output / "round_1/fit/policy")
    assert [one["source"] for one in given] == ["first", policy]
    assert [(one["part"], one["parts"], one["seed"]) for one in given] == [(1, 2, 3), (2, 2, 3)]
    first, second = stages[1], stages[3]
    assert "--model.policy.init_args.adapter" not in first
    assert value(second, "--model.policy.init_args.adapter") == policy
    assert value(second, "--model.policy.init_args.source") == "first"
    assert "--model.policy.init_args.reference_of" not in second, "the reference is where the round started"
    assert [value(words, "--seed_everything") for words in (first, second)] == ["4", "5"]
    assert value(second, "--trainer.max_epochs") == "2"
    assert value(second, "--data.train") == str(output / "round_2/sample/train_pairs.jsonl")
    table = (output / "rounds.md").read_text()
    assert "reference the last round's policy" in table
    cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in table.splitlines()[4:]]
    assert cells == [
        ["0", "-", "0.25 (0.20 to 0.80, n 8)"],
        ["1", "2", "0.50 (0.20 to 0.80, n 8)"],
        ["2", "2", "0.50 (0.20 to 0.80, n 8)"],
    ]
    assert (output / "rounds.png").stat().st_size > 1000
    before = table
    stages.clear()
    rounds(output, fit, PREPARE, source="first", settings={"trainer.max_epochs": 2}, seed=3)
    assert stages == [], "what is done is skipped"
    assert (output / "rounds.md").read_text() == before


def test_the_first_model_as_the_reference(tmp_path: Path, fit: Path, stages: list[Any]) -> None:
    rounds(tmp_path / "out", fit, PREPARE, source="first", reference="first")
    assert value(stages[3], "--model.policy.init_args.reference_of") == "base"
    (tmp_path / "out/round_1/fit/policy/adapter_config.json").unlink()  # as where all weights are trained
    (tmp_path / "out/round_2/fit.json").unlink()
    with pytest.raises(Refusal, match="reference must be last where all weights are trained, got first"):
        rounds(tmp_path / "out", fit, PREPARE, source="first", reference="first")


def test_a_cached_reference_is_a_stage_of_its_own(tmp_path: Path, fit: Path, stages: list[Any]) -> None:
    rounds(tmp_path / "out", fit, PREPARE, source="first", rounds=1, settings={"model.reference": "cache"})
    assert [words[0] for words in stages] == ["prepare", "cache", "fit"]
    assert stages[1][1:] == stages[2][1:]


def test_a_fit_that_was_killed_goes_on(tmp_path: Path, fit: Path, stages: list[Any]) -> None:
    rounds(tmp_path / "out", fit, PREPARE, source="first", rounds=1)
    (tmp_path / "out/round_1/fit.json").unlink()
    stages.clear()
    rounds(tmp_path / "out", fit, PREPARE, source="first", rounds=1)
    assert [words[-2:] for words in stages] == [["--ckpt_path", "last"]]


def test_a_round_without_pairs_ends_with_a_sentence(
    tmp_path: Path, fit: Path, stages: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rounds(tmp_path / "out", fit, PREPARE | {"families": ["none"]}, source="first")
    assert [words[0] for words in stages] == ["prepare"]
    assert "round 1 has no usable pairs" in capsys.readouterr().out
    assert (tmp_path / "out/rounds.md").exists()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"seed": 9}, "got a stage that was made with other settings"),
        ({"source": "second"}, r"sample\.json and what comes .* got a stage that was made with other settings"),
        ({"prepare": PREPARE | {"samples": 9}}, "got a stage that was made with other settings"),
        ({"prepare": PREPARE | {"engine": {"server": {"base_url": "x"}}}}, "prepare must be without engine.server"),
        ({"prepare": PREPARE | {"source": "other"}}, "prepare must be without source, which the rounds give"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path, fit: Path, stages: list[Any], changed: dict[str, Any], sentence: str
) -> None:
    given = {"prepare": PREPARE, "seed": 1, "source": "first"}
    rounds(tmp_path / "out", fit, rounds=1, **given)  # type: ignore[arg-type]
    with pytest.raises(Refusal, match=sentence):
        rounds(tmp_path / "out", fit, rounds=1, **given | changed)  # type: ignore[arg-type]


def test_another_model_after_the_samples_is_refused(tmp_path: Path, fit: Path, stages: list[Any]) -> None:
    """As where the rounds were killed behind the first stage: the other model's samples and rates are not taken."""
    rounds(tmp_path / "out", fit, PREPARE, source="first", rounds=1)
    for stage in ("fit", "evaluate"):
        (tmp_path / f"out/round_1/{stage}.json").unlink()
    with pytest.raises(Refusal, match=r"round_1/sample\.json"):
        rounds(tmp_path / "out", fit, PREPARE, source="second", rounds=1)


@pytest.mark.parametrize(("name", "stage"), [("model.gguf", "sample"), ("prompts.jsonl", "sample"), ("v.jsonl", "fit")])
def test_other_contents_of_a_file_are_refused(
    tmp_path: Path, fit: Path, stages: list[Any], name: str, stage: str
) -> None:
    for file in ("model.gguf", "prompts.jsonl", "v.jsonl"):
        (tmp_path / file).write_text("before")
    prepare = PREPARE | {"prompts": {"path": str(tmp_path / "prompts.jsonl")}}
    fit.write_text(yaml.safe_dump({"data": {"validation": str(tmp_path / "v.jsonl")}}))
    for expected in (["prepare", "fit"], []):
        rounds(tmp_path / "out", fit, prepare, source=str(tmp_path / "model.gguf"), rounds=1)
        assert [words[0] for words in stages] == expected
        stages.clear()
    (tmp_path / name).write_text("after")
    with pytest.raises(Refusal, match=rf"{stage}\.json and what comes .* other contents of its files"):
        rounds(tmp_path / "out", fit, prepare, source=str(tmp_path / "model.gguf"), rounds=1)


def test_an_evaluation_prompt_among_the_pairs_is_refused(tmp_path: Path, fit: Path, stages: list[Any]) -> None:
    rounds(tmp_path / "out", fit, PREPARE, source="first", rounds=1)
    pairs = tmp_path / "out/round_1/sample/train_pairs.jsonl"
    asked = json.loads((tmp_path / "out/round_1/sample/test_prompts.jsonl").read_text().splitlines()[0])
    shared = json.loads(pairs.read_text().splitlines()[0]) | {"prompt": asked["prompt"]}
    pairs.write_text(json.dumps(shared) + "\n")
    (tmp_path / "out/round_1/fit.json").unlink()
    with pytest.raises(Refusal, match="got 1 that are shared"):
        rounds(tmp_path / "out", fit, PREPARE, source="first", rounds=1)


def test_a_dry_run_writes_nothing(
    tmp_path: Path, fit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(words: list[str], log_file: Path, environment: Any, name: str) -> None:
        assert words[-2:] == ["--dry_run", "true"]
        given = yaml.safe_load(Path(value(words, "--config")).read_text())
        assert (given["source"], given["parts"], given["part"]) == ("first", 2, 1)
        log_file.write_text("| sampling | 1 s | 17.2 hours |")

    monkeypatch.setattr(module, "run_command", command)
    rounds(tmp_path / "out", fit, PREPARE, source="first", dry_run=True)
    assert not (tmp_path / "out").exists()
    assert "17.2 hours" in capsys.readouterr().out
