"""The command line as a user types it: runs, saved configs, refusals in sentences."""

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
import yaml
from peft import PeftModel
from support import catalog
from support.commands import refused
from support.training import Write
from transformers import AutoModelForCausalLM

from lightning_bnf.cli.main import let_memory_grow, main, show_warning
from lightning_bnf.policies.adapters import __file__ as ours

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.drawing
def test_a_run_leaves_everything_in_its_folder(tmp_path: Path, config: Callable[..., str], tiny_folder: str) -> None:
    main(["fit", "--config", config()])
    run = tmp_path / "run"
    for name in ("config.yaml", "metrics.csv", "data_report.txt", "plots/loss.png", "plots/bnf_weight.png"):
        assert (run / name).stat().st_size > 100, name
    assert list(run.glob("events.out.tfevents.*"))
    assert [path.name for path in (run / "checkpoints").iterdir()]
    assert "⟦7<|im_end|>⟧" in (run / "data_report.txt").read_text()
    assert "Load with: `PeftModel" in (run / "policy" / "README.md").read_text()
    held = torch.load(next((run / "checkpoints").glob("*=4.ckpt")), weights_only=True)["state_dict"]
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), run / "policy")
    saved = {name.replace("base_model", "policy.model.base_model", 1): p for name, p in adapted.named_parameters()}
    assert all(torch.equal(value, saved[name]) for name, value in held.items()), "the export is the checkpoint's policy"


def test_the_saved_config_makes_the_same_run_again(tmp_path: Path, config: Callable[..., str]) -> None:
    main(["fit", "--config", config()])
    run = tmp_path / "run"
    first = (run / "metrics.csv").read_text()
    main(["fit", "--config", str(run / "config.yaml")])
    assert (run / "metrics.csv").read_text() == first
    assert (tmp_path / "run.1" / "metrics.csv").read_text() == first, "the earlier run is moved aside, not lost"


def with_verifiers(path: str, tmp_path: Path) -> str:
    """The pairs with a verifier, as a test file."""
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    extra = {"verifier": {"name": "ends_with_question"}, "family": "f", "max_new_tokens": 4}
    target = tmp_path / "test.jsonl"
    target.write_text("".join(json.dumps(row | extra | {"kept_out": i % 2 == 0}) + "\n" for i, row in enumerate(rows)))
    return str(target)


def test_test_and_validate_print_metrics_and_pass_rates(
    tmp_path: Path, config: Callable[..., str], write_pairs: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    verified = with_verifiers(write_pairs("v.jsonl"), tmp_path)
    file = config(data__test=verified, data__validation=verified)
    main(["test", "--config", file])
    shown = capsys.readouterr().out
    assert "test/logps/chosen" in shown
    assert "| kept-out | sampled  | 3 |" in shown
    base = json.loads((tmp_path / "run" / "test_metrics.json").read_text())
    assert base["test/rewards/margins"] == 0.0, "the plain base is its own reference"
    main(["fit", "--config", file])
    metrics = (tmp_path / "run" / "metrics.csv").read_text()
    checkpoint = str(next((tmp_path / "run" / "checkpoints").glob("*=4.ckpt")))
    capsys.readouterr()
    main(["validate", "--config", str(tmp_path / "run" / "config.yaml"), "--ckpt_path", checkpoint])
    assert "| trained  | greedy   | 2 |" in capsys.readouterr().out
    trained = json.loads((tmp_path / "run" / "validation_metrics.json").read_text())
    assert trained["val/rewards/margins"] > 0.1
    assert (tmp_path / "run" / "metrics.csv").read_text() == metrics, "the run's own metrics are left alone"


def test_predict_writes_a_line_for_every_prompt(tmp_path: Path, config: Callable[..., str], write_pairs: Write) -> None:
    file = config(data__test=with_verifiers(write_pairs("v.jsonl"), tmp_path))
    main(["predict", "--config", file, "--model.generation.samples", "2", "--model.generation.temperature", "1.0"])
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions_0.jsonl").read_text().splitlines()]
    assert len(lines) == 5 * 2
    assert {line["prompt"][0]["content"] for line in lines} >= {"What is 3 + 4?", "Name a colour."}
    assert all(0 < line["length"] <= 4 for line in lines)
    assert all(0 <= line["score"] <= 1 for line in lines)


def test_prompts_alone_can_be_tested(tmp_path: Path, config: Callable[..., str], capsys: Any) -> None:
    path = tmp_path / "prompts.jsonl"
    row = {"prompt": [{"role": "user", "content": "Hi"}], "verifier": {"name": "question"}, "max_new_tokens": 3}
    path.write_text(json.dumps(row) + "\n")
    main(["test", "--config", config(data__test=str(path))])
    assert "greedy" in capsys.readouterr().out


@pytest.mark.parametrize("loss", [path.stem for path in sorted((ROOT / "configs/loss").glob("*.yaml"))])
def test_the_loss_is_swapped_by_a_file(tmp_path: Path, config: Callable[..., str], write_for: Write, loss: str) -> None:
    data = write_for(catalog.build(loss), "rows.jsonl", 10)
    words = ["--model.loss", str(ROOT / f"configs/loss/{loss}.yaml"), "--data.validation", data]
    main(["fit", "--config", config(data__train=data), *words])
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    without_arguments = {"init_args": {}}
    wanted = yaml.safe_load((ROOT / f"configs/loss/{loss}.yaml").read_text())
    assert without_arguments | saved["model"]["loss"] == without_arguments | wanted
    assert (tmp_path / "run" / "plots" / "bnf_weight.png").exists() == (loss in ("bnf", "bnf_restore", "bnf_dpo"))


@pytest.mark.parametrize("policy", ["full", "lora", "qlora"])
def test_the_policy_is_swapped_by_a_file(
    tmp_path: Path, config: Callable[..., str], policy: str, tiny_folder: str
) -> None:
    file = str(ROOT / f"configs/policy/{policy}.yaml")
    main(["fit", "--config", config(), "--model.policy", file, "--model.policy.init_args.source", tiny_folder])
    weights = "model.safetensors" if policy == "full" else "adapter_model.safetensors"
    assert (tmp_path / "run" / "policy" / weights).is_file()


def test_trainer_files_fit_the_trainer(tmp_path: Path, config: Callable[..., str]) -> None:
    main(["fit", "--config", config(), "--trainer", str(ROOT / "configs/trainer/cpu.yaml")])
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["max_epochs"] == 1


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bfloat16_runs(tmp_path: Path, config: Callable[..., str], precision: str) -> None:
    main(["fit", "--config", config(), "--trainer.precision", precision])
    assert (tmp_path / "run" / "policy").is_dir()


def test_an_unpaired_run_logs_no_pair_metrics(tmp_path: Path, config: Callable[..., str]) -> None:
    path = tmp_path / "unpaired.jsonl"
    rows = [{"prompt": f"say {i}", "completion": str(i), "label": i % 2 == 0} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(["fit", "--config", config(data__train=str(path))])
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert "train/rewards/chosen" in header
    assert "margins" not in header


UNKNOWN = [
    (["--model.los", "x"], "model.los", "model.loss"),
    (["--data.example_per_step", "3"], "data.example_per_step", "data.examples_per_step"),
    (["--model.loss.init_args.normaliser", "response"], "normaliser", "normalizer"),
    (["--trainer.max_epoch", "3"], "trainer.max_epoch", "trainer.max_epochs"),
]


@pytest.mark.parametrize(("words", "unknown", "nearest"), UNKNOWN)
def test_an_unknown_argument_is_refused_with_the_nearest(
    config: Callable[..., str], capsys: pytest.CaptureFixture[str], words: list[str], unknown: str, nearest: str
) -> None:
    message = refused(capsys, "fit", "--config", config(), *words)
    assert unknown in message
    assert f"did you mean '{nearest}'" in message


@pytest.mark.parametrize(
    ("changes", "unknown", "nearest"),
    [
        ({"data__exampels_per_step": 3}, "data.exampels_per_step", "data.examples_per_step"),
        ({"trainer__max_epoch": 3}, "trainer.max_epoch", "trainer.max_epochs"),
    ],
)
def test_an_unknown_key_in_a_file_is_refused_with_the_nearest(
    config: Callable[..., str], capsys: pytest.CaptureFixture[str], changes: Any, unknown: str, nearest: str
) -> None:
    message = refused(capsys, "fit", "--config", config(**changes))
    assert unknown in message
    assert f"did you mean '{nearest}'" in message


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--model.loss", "BFN"], ["model.loss must be one of aot, ", "got BFN; did you mean 'bnf'?"]),
        (["--model.policy", "lra"], ["model.policy must be one of full, lora, qlora, a YAML file", "got lra; did you"]),
        (
            ["--trainer.accelerator", "cuda"],
            ["trainer.accelerator must be auto or one that this machine has (cpu), got cuda"],
        ),
        (["--model.optimization.learning_rate", "-1"], ["model.optimization.learning_rate must be in (0, 1], got -1"]),
        (
            ["--model.loss", str(ROOT / "configs/loss/dpo.yaml"), "--model.loss.beta", "-1"],
            ["beta must be > 0, got -1"],
        ),
        (["--model.policy.init_args.r", "0"], ["r must be >= 1, got 0"]),
        (["--model.policy.init_args.target_modules", "[query]"], ["target_modules", "query", "q_proj"]),
        (["--model.policy.init_args.source", "./nowhere"], ["source './nowhere': there is no such folder"]),
        (["--model.reference", "none"], ["with a loss that needs one, got none"]),
        (["--trainer.gradient_clip_val", "1.0"], ["gradient_clip_val must be null, got 1.0", "max_grad_norm"]),
        (["--trainer.accumulate_grad_batches", "2"], ["accumulate_grad_batches must be 1, got 2", "examples_per_step"]),
        (["--trainer.use_distributed_sampler", "true"], ["use_distributed_sampler must be false, got true"]),
        (["--data.max_tokens", "many"], ["max_tokens"]),
        (["--trainer.precision", "16-mixed"], ["precision must be 32-true, bf16-mixed or bf16-true, got 16-mixed"]),
        (["--data.train", "/no/such.jsonl"], ["/no/such.jsonl", "there is no such file"]),
        (["--data.max_tokens", "0"], ["max_tokens must be >= 1, got 0"]),
        (["--data.options.max_length", "20"], ["train.jsonl", "dropped rows must be at most", "max_length"]),
    ],
)
def test_a_bad_setting_is_refused_in_a_sentence(
    config: Callable[..., str], capsys: pytest.CaptureFixture[str], words: list[str], parts: list[str]
) -> None:
    message = refused(capsys, "fit", "--config", config(), *words)
    for part in parts:
        assert part in message
    assert "Traceback" not in message


def test_a_run_without_a_model_is_refused_with_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "fit", "--data.train", "mine.jsonl")
    assert "model.source must be a model to align (a hub id, a local folder or a GGUF file), got nothing" in message
    assert "--model.source HuggingFaceTB/SmolLM2-360M-Instruct" in message
    assert message.splitlines()[-1] == "Every setting is explained by: python -m lightning_bnf fit --help"


def test_a_run_with_a_model_and_data_needs_no_more(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """60 rows: 12 are held out and 48 trained on, in 12 steps of 4; the run is in runs/latest."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump({"model": {"source": tiny_folder}}))
    main(["fit", "--data.train", write_pairs(rows=60), "--config", "mine.yaml"])
    said = capsys.readouterr().err
    assert "model.loss: bnf " in said
    assert "more than 50 times" not in said
    saved = yaml.safe_load(Path("runs/latest/config.yaml").read_text())
    assert saved["model"]["policy"]["init_args"]["source"] == tiny_folder
    assert saved["model"]["optimization"]["learning_rate"] == 5e-5
    assert (saved["trainer"]["max_epochs"], saved["trainer"]["precision"]) == (1, "32-true")
    metrics = pandas.read_csv("runs/latest/metrics.csv")
    assert metrics["train/loss"].count() == 12
    assert metrics.loc[metrics["val/loss"].notna(), "step"].tolist() == [2, 5, 8, 11]  # from 0


def test_a_rate_for_adapters_is_pointed_out_where_all_weights_are_trained(
    config: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", "--config", config(trainer__max_epochs=1), "--model.policy", "full"])
    assert "learning_rate is 0.01, more than 50 times the 5e-07" in capsys.readouterr().err


def test_a_value_error_that_is_no_refusal_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def verb() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("lightning_bnf.losses.table.print_losses", verb)
    with pytest.raises(ValueError, match="a bug"):
        main(["losses"])


def test_help_shows_the_range_of_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--model.loss.help", "DPO"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(> 0, 1/nats). (type: float > 0, default: 0.1)" in text
    assert "(type: float in [0, 0.5), default: 0.0)" in text


def test_an_unknown_command_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no command 'fti'; did you mean 'fit'?" in refused(capsys, "fti")


def test_help_lists_every_command_and_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    overview = capsys.readouterr().out
    assert all(f"\n  {name} " in overview for name in ("fit", "validate", "test", "predict", "prepare"))
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "Peak learning rate (above 0, at most 1); null takes the one that the loss declares",
        "Token budget of a micro-batch, padding included",
        "Longest prompt and completion together, in tokens.",
        "How `predict` draws completions",
        "Where reference log-probabilities come from",
    ):
        assert text in shown
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    assert "completions drawn per question" in capsys.readouterr().out


def test_disk_full_while_exporting_leaves_nothing_half_written(
    tmp_path: Path, config: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PeftModel, "save_pretrained", full)
    message = refused(capsys, "fit", "--config", config())
    assert f"{tmp_path}/run/policy must be on a disk with room where it may be written" in message
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert "policy" not in names
    assert not any(name.startswith(".policy") for name in names)


def test_several_devices_are_for_training(config: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    message = refused(capsys, "validate", "--config", config(data__validation=["x.jsonl"]), *two)
    assert "trainer.devices must be one device for validate, got 2 devices" in message


def test_a_config_is_named_for_commands_that_train_nothing_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "--seed", "7", "--config", "quickstart", "--print_config"])
    assert not stop.value.code
    shown = yaml.safe_load(capsys.readouterr().out)
    wanted = yaml.safe_load((ROOT / "configs/prepare/quickstart.yaml").read_text())
    assert (shown["seed"], shown["families"]) == (7, wanted["families"])


def test_segments_of_gpu_memory_grow_unless_somebody_has_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "max_split_size_mb:128")
        let_memory_grow()
        assert os.environ[name] == "max_split_size_mb:128"
        monkeypatch.delenv(name)
    let_memory_grow()
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


def test_warnings_of_this_package_are_sentences_and_others_say_where_they_are_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warnings, "showwarning", show_warning)
    monkeypatch.setattr(warnings, "filters", [])
    warnings.warn_explicit("3 of 4 rows\x1b[2J are long", UserWarning, ours, 7)
    warnings.warn_explicit("it is old", DeprecationWarning, "/lib/theirs.py", 9)
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "WARNING: 3 of 4 rows\\x1b[2J are long"
    assert "/lib/theirs.py:9" in shown[1]
    assert "it is old" in shown[1]
    warnings.warn_explicit("no longer (Triggered internally at x.cpp:3)", UserWarning, ours, 8)
    warnings.warn_explicit("invalid value", RuntimeWarning, ours, 9)
    shown = capsys.readouterr().err
    assert f"{ours}:8" in shown
    assert f"{ours}:9" in shown


def test_a_warning_that_nobody_reads_ends_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with suppress(OSError), os.fdopen(writer, "w") as pipe:  # closing it writes again
        for nobody in (pipe, None):
            monkeypatch.setattr(sys, "stderr", nobody)
            show_warning("3 of 4 rows are long", UserWarning, ours, 7)
            show_warning("it is old", DeprecationWarning, "/lib/theirs.py", 9)
    assert capsys.readouterr().out == ""


def test_a_run_shows_warnings_as_sentences(
    capsys: pytest.CaptureFixture[str], config: Callable[..., str], tmp_path: Path, tiny_folder: str
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "short")
    about = tmp_path / "short" / "config.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"max_position_embeddings": 8}))
    policy = {"class_path": "lightning_bnf.policies.LoRAPolicy", "init_args": {"source": str(tmp_path / "short")}}
    main(["fit", "--config", config(model__policy=policy, trainer__max_steps=1)])
    told = [line for line in capsys.readouterr().err.splitlines() if "8 positions that" in line]
    assert [line.startswith("WARNING: 10 of 10 rows, such as ") for line in told] == [True]
