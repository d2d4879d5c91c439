"""What is chosen before the parser reads: names, device and classes; and that the parser's result is what was typed."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_bnf.cli.defaults import POLICY_DTYPE, Chosen, Start, as_yaml, start_of
from lightning_bnf.cli.main import main
from lightning_bnf.cli.words import options

CONFIGS = Path(__file__).parents[2] / "configs"


def start(*words: str) -> Start:
    return start_of(options("fit", words))


def resolved(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The config that `fit` would run with."""
    with pytest.raises(SystemExit) as stop:
        main(["fit", *words, "--print_config"])
    assert not stop.value.code
    found: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return found


def test_a_run_that_names_nothing_gets_lora_and_bnf() -> None:
    given = start("--data.train", "x.jsonl")
    assert [option.key for option in given.options[:2]] == ["model.policy", "model.loss"]
    assert [option.values[0] for option in given.options[:2]] == [
        str(CONFIGS / "policy/lora.yaml"),
        str(CONFIGS / "loss/bnf.yaml"),
    ]
    assert given.parser_defaults["model.optimization.learning_rate"] == 5e-5
    assert {chosen.key for chosen in given.shown} == {
        "model.policy",
        "model.loss",
        POLICY_DTYPE,
        *given.parser_defaults,
    }


def test_what_is_named_is_not_chosen(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("model: {policy: {class_path: FullPolicy}, loss: sft}\ntrainer: {precision: bf16-true}\n")
    given = start("--config", str(config), "--data.validation", "v.jsonl")
    assert given.parser_defaults["model.optimization.learning_rate"] == 2e-5
    keys = {chosen.key for chosen in given.shown}
    assert keys.isdisjoint({"model.policy", "model.loss", POLICY_DTYPE, "trainer.precision", "data.validation"})
    assert [option.key for option in given.options] == ["config", "data.validation"]


def test_help_chooses_nothing() -> None:
    assert start("--model.loss.help", "DPO") == Start(options("fit", ["--model.loss.help", "DPO"]), {}, [])


def test_a_number_of_steps_takes_the_place_of_one_epoch() -> None:
    """And a time does not: the schedule falls to a last step, which a time does not tell."""
    assert start("--trainer.max_time", "00:01:00:00").parser_defaults["trainer.max_epochs"] == 1
    assert "trainer.max_epochs" not in start("--trainer.max_steps", "5").parser_defaults


def test_the_type_of_a_base_follows_the_device_for_a_policy_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)

    def dtypes(*words: str) -> list[str]:
        return [option.values[0] for option in start(*words).options if option.key == POLICY_DTYPE]

    own = tmp_path / "own.yaml"
    own.write_text("class_path: lightning_bnf.policies.LoRAPolicy\n")
    assert dtypes() == dtypes("--model.policy", "lora") == ["bfloat16"]
    assert dtypes("--trainer.accelerator", "cpu", "--model.policy", "qlora") == ["float32"]
    assert dtypes(f"--{POLICY_DTYPE}", "float16") == ["float16"]
    assert dtypes("--model.policy", "full") == dtypes("--model.policy", str(own)) == []


def test_a_gpu_that_is_planned_for_need_not_be_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert start("--gpu_memory", "24").parser_defaults["trainer.precision"] == "bf16-mixed"
    on_cpu = start("--gpu_memory", "24", "--trainer.accelerator", "cpu")
    assert on_cpu.parser_defaults["trainer.precision"] == "32-true", "what is named goes over what a GPU would have"
    assert start("--trainer", "single_gpu", "--model.policy", "qlora").options[-1].values == ("bfloat16",)
    assert start().parser_defaults["trainer.precision"] == "32-true"


def test_a_class_that_cannot_be_found_is_left_to_the_parser() -> None:
    given = start("--model.loss", "no_such.Loss", "--model.policy", "os.PathLike")
    assert "model.optimization.learning_rate" not in given.parser_defaults


def test_the_yaml_is_what_a_config_takes() -> None:
    text = as_yaml([Chosen("trainer.max_epochs", 1, "once"), Chosen("model.optimization.learning_rate", 5e-5, "small")])
    assert text.splitlines()[0] == "trainer.max_epochs: 1                      # once"
    assert yaml.safe_load(text) == {"trainer.max_epochs": 1, "model.optimization.learning_rate": 5e-5}


@pytest.mark.slow
def test_a_name_takes_the_place_of_a_whole_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both have `tau` or `beta`: nothing of the config's loss may be left in the one that was typed."""
    config = tmp_path / "c.yaml"
    config.write_text("model: {loss: {class_path: DPO, init_args: {beta: 0.5}}, policy: lora}\n")
    loss = resolved(capsys, "--model.loss", "kto", "--config", str(config), "--model.source", "x")["model"]["loss"]
    assert loss == yaml.safe_load((CONFIGS / "loss/kto.yaml").read_text())
    typed = ("--model.loss.init_args.beta", "0.7", "--model.loss", "KTO")
    assert resolved(capsys, "--config", str(config), *typed)["model"]["loss"]["init_args"]["beta"] == 0.7


@pytest.mark.slow
def test_a_swapped_policy_keeps_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    policy = {"class_path": "LoRAPolicy", "init_args": {"source": "owner/name", "revision": "abc", "r": 4}}
    config.write_text(yaml.safe_dump({"model": {"policy": policy}}))
    found = resolved(capsys, "--model.policy", "qlora", "--config", str(config))["model"]["policy"]
    assert found["class_path"] == "lightning_bnf.policies.QLoRAPolicy"
    shown = {name: found["init_args"][name] for name in ("source", "revision", "r")}
    assert shown == {"source": "owner/name", "revision": "abc", "r": None}


@pytest.mark.slow
def test_names_are_read_inside_configs_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("model: {loss: {class_path: DPO, init_args: {beta: 0.5}}}\n")
    second.write_text("model: {loss: ipo}\ntrainer: cpu\n")
    found = resolved(capsys, "--config", str(first), "--config", str(second))
    assert found["model"]["loss"] == yaml.safe_load((CONFIGS / "loss/ipo.yaml").read_text())
    assert found["trainer"]["accelerator"] == "cpu"
    assert found["model"]["optimization"]["learning_rate"] == 5e-5
