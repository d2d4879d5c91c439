"""Every config of the paper's scale: two steps on a tiny random model of its architecture, rows like the hub's."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from support.commands import refused
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, PreTrainedTokenizerBase

from lightning_bnf.cli.main import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "configs/paper").glob("*.yaml"))
BASES = ROOT / "configs/paper/base"
TRAINED = [path for path in PATHS if path.stem.startswith("llama3_") or path.stem.endswith("_bnf")]
KINDS = {"llama3": LlamaConfig, "mistral": MistralConfig, "gemma2": Gemma2Config}
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
PUBLISHED = {
    "llama3_bnf": (6e-7, {}),
    "mistral_bnf": (5e-7, {}),
    "gemma2_bnf": (8e-7, {}),
    "llama3_dpo": (3e-7, {"beta": 0.01}),
    "mistral_dpo": (5e-7, {"beta": 0.01}),
    "gemma2_dpo": (5e-7, {"beta": 0.01}),
    "llama3_simpo": (1e-6, {"beta": 10.0, "gamma_beta_ratio": 0.3}),
    "mistral_simpo": (5e-7, {"beta": 2.5, "gamma_beta_ratio": 0.1}),
    "gemma2_simpo": (8e-7, {"beta": 10.0, "gamma_beta_ratio": 0.5}),
}
"""Learning rates and losses' own parameters that were published: the paper's, and SimPO's repository's."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """A saved tiny model of each architecture, with the bundled tokenizer."""
    folders = {}
    for name, kind in KINDS.items():
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("models") / name
        tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
        AutoModelForCausalLM.from_config(kind(vocab_size=len(tokenizer), **SIZES, **tokens)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[name] = str(folder)
    return folders


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Rows with the columns of the hub's data: a prompt as text, answers as conversations, five scored samples."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    with path.open("w") as file:
        for i in range(8):
            prompt, answers = f"What is {i} + {i}?", [f"It is {2 * i + k}." for k in range(5)]
            row: dict[str, Any] = {
                "prompt_id": f"id{i}",
                "prompt": prompt,
                "all_generated_responses": answers,
                "all_rm_scores": [0.9, 0.5, 0.4, 0.3, 0.1],
            }
            for side, answer in (("chosen", answers[0]), ("rejected", answers[4])):
                row[side] = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            file.write(json.dumps(row) + "\n")
    return str(path)


def command(path: Path) -> list[str]:
    """What a file's header says to type: the model's base, then the file."""
    (line,) = (line for line in path.read_text().splitlines() if line.startswith("#   python -m lightning_bnf "))
    return line.removeprefix("#   python -m lightning_bnf ").split()


def test_there_is_one_for_every_trained_row_of_table_4_and_for_rdpo() -> None:
    methods = {"bnf", "dpo", "ipo", "kto", "orpo", "simpo", "slic", "rdpo"}
    wanted = {f"{model}_{method}" for model in ("llama3", "mistral") for method in methods}
    assert {path.stem for path in PATHS} == wanted | {"gemma2_bnf", "gemma2_dpo", "gemma2_simpo"}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_published_settings_are_taken_and_others_marked(path: Path) -> None:
    text = path.read_text()
    own, base = yaml.safe_load(text), yaml.safe_load((BASES / f"{path.stem.split('_')[0]}.yaml").read_text())
    assert base["model"]["optimization"] == {"schedule": "cosine", "warmup_ratio": 0.1}
    assert (base["data"]["examples_per_step"], base["trainer"]["max_epochs"]) == (128, 1)
    options = base["data"]["options"] | own.get("data", {}).get("options", {})
    lengths = (options["max_length"], options["max_prompt_length"], options["truncation"])
    assert lengths == ((4096, None, "drop") if path.stem.endswith("_bnf") else (2048, 1800, "trim"))
    if path.stem in PUBLISHED:
        rate, parameters = PUBLISHED[path.stem]
        assert own["model"]["optimization"] == {"learning_rate": rate}
        assert own["model"]["loss"].get("init_args", {}).items() >= parameters.items()
        assert "# ours" not in text
    else:
        assert text.count("# ours") >= 2, "the learning rate, and the loss's own parameter"


@pytest.mark.parametrize("path", [path for path in PATHS if path not in TRAINED], ids=lambda path: path.stem)
def test_its_command_is_taken(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The same loss is trained on another model, and the same base with another loss: here the two are parsed."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        main([*command(path), "--print_config"])
    assert not stop.value.code
    resolved = yaml.safe_load(capsys.readouterr().out)
    check_resolved(resolved, path)
    base = yaml.safe_load((BASES / f"{path.stem.split('_')[0]}.yaml").read_text())
    assert resolved["data"]["train"] == base["data"]["train"]


def check_resolved(resolved: dict[str, Any], path: Path) -> None:
    own = yaml.safe_load(path.read_text())["model"]
    assert resolved["model"]["loss"]["init_args"].items() >= own["loss"]["init_args"].items()
    assert resolved["model"]["optimization"]["learning_rate"] == own["optimization"]["learning_rate"]


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_it_trains_a_tiny_model_of_its_architecture(
    tmp_path: Path, models: dict[str, str], rows: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the machine and the size of the data ask for is changed, on the command line."""
    changes = {
        "model.policy.init_args.source": models[path.stem.split("_")[0]],
        "model.reference_cache": str(tmp_path / "cache"),
        "data.train": rows,
        "data.validation": rows,
        "data.examples_per_step": "4",
        "trainer.accelerator": "cpu",
        "trainer.devices": "1",
        "trainer.strategy": "auto",
        "trainer.val_check_interval": "2",
        "trainer.default_root_dir": str(tmp_path / "run"),
    }
    monkeypatch.chdir(ROOT)
    main([*command(path), *(word for name, value in changes.items() for word in (f"--{name}", value))])
    assert (tmp_path / "run" / "policy" / "config.json").is_file()
    check_resolved(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()), path)
    losses = pd.read_csv(tmp_path / "run" / "metrics.csv").dropna(subset="train/loss")
    assert losses["step"].tolist() == [0, 1]


def test_a_row_without_its_base_is_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "fit", "--config", str(ROOT / "configs/paper/llama3_bnf.yaml"))
    assert "model.source must be a model to align" in message
