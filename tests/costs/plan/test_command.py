"""The verb plan: what it says of a run, what it advises, and how it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_bnf.cli.main import main
from lightning_bnf.costs.plan.command import plan
from lightning_bnf.costs.plan.estimate import Devices
from lightning_bnf.costs.plan.question import Question, devices_of
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("trainer", "question", "expected"),
    [
        ({"accelerator": "cpu", "devices": 1}, Question(), Devices("cpu")),
        ({"accelerator": "cpu", "devices": 1}, Question(gpus=2), Devices("cuda", 2, "ddp")),
        (
            {"accelerator": "cuda", "devices": 4, "num_nodes": 2, "strategy": "fsdp2"},
            Question(),
            Devices("cuda", 8, "fsdp2"),
        ),
        ({"accelerator": "auto"}, Question(gpu_memory=24), Devices("cuda", 1, "one device", 24e9)),
        ({"accelerator": "gpu", "devices": [0, 1], "strategy": "ddp"}, Question(), Devices("cuda", 2, "ddp")),
    ],
)
def test_devices_are_those_asked_for_else_the_trainers(trainer: Any, question: Question, expected: Devices) -> None:
    assert devices_of(trainer, question) == expected


def test_other_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match="strategy must be auto, ddp or fsdp2, got deepspeed"):
        devices_of({"strategy": "deepspeed"}, Question(gpus=2))


@pytest.mark.parametrize("name", ["gpus", "gpu_memory", "flops", "rows", "tokens_per_row"])
def test_numbers_are_above_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >=? [01], got 0"):
        Question(**{name: 0})


@pytest.fixture
def config(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> str:
    values = {
        "model": {
            "policy": {"class_path": "lightning_bnf.policies.FullPolicy", "init_args": {"source": tiny_folder}},
            "loss": str(ROOT / "configs/loss/bnf.yaml"),
        },
        "data": {"train": write_pairs(rows=10), "examples_per_step": 5, "max_tokens": 512},
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "default_root_dir": str(tmp_path / "run")},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def test_the_command_prints_the_table_and_loads_nothing(
    config: str, tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FullPolicy, "load", lambda self: pytest.fail("weights were loaded"))
    main(["plan", "--config", config, "--flops", "0.5"])
    shown = capsys.readouterr().out
    for line in ("weights (float32)", "reference copy", "optimizer state", "activations", "interpreter, libraries"):
        assert line in shown
    assert "activations with gradient_checkpointing: " in shown
    assert "steps: 4 of 5 rows (10 rows in an epoch)" in shown
    assert "at 0.5 TFLOP/s a device (as given)" in shown
    assert "fit" not in shown.replace("fits", ""), "no verdict without a memory"
    assert not (tmp_path / "run").exists()


def test_the_exit_status_says_whether_it_fits(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "--config", config, "--gpus", "2", "--gpu_memory", "80", "--flops", "100"])
    shown = capsys.readouterr().out
    assert "2 x cuda, ddp" in shown
    assert "It fits: " in shown
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--config", config, "--gpu_memory", "0.65", "--flops", "100"])
    assert stop.value.code == 1
    shown = capsys.readouterr().out
    assert "It does not fit: " in shown
    assert "model.reference: cache (one more pass over the data)" in shown


def test_rows_may_be_told_instead_of_read(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "--config", config, "--data.train", "somebody/something", "--flops", "1"])
    assert "steps: unknown, as data.train is not a local file; give --rows" in capsys.readouterr().out
    main(["plan", "--config", config, "--data.train", "somebody/something", "--rows", "100", "--flops", "1"])
    assert "steps: 40 of 5 rows (100 rows in an epoch); tokens a step: unknown" in capsys.readouterr().out
    told = ["--rows", "100", "--tokens_per_row", "300"]
    main(["plan", "--config", config, "--data.train", "somebody/something", *told, "--flops", "1"])
    assert "tokens a step: 1,500" in capsys.readouterr().out


def test_what_a_run_would_refuse_is_refused(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--config", config, "--trainer.precision", "16-mixed"])
    assert stop.value.code == 2
    assert "precision must be 32-true, bf16-mixed or bf16-true, got 16-mixed" in capsys.readouterr().err


def test_the_plan_is_a_function_too(tiny_folder: str, write_pairs: Callable[..., str], capsys: Any) -> None:
    module = PreferenceModule(FullPolicy(tiny_folder), BNF(), "cache")
    data = PreferenceData(write_pairs(), examples_per_step=5, max_tokens="auto")
    assert plan(module, data, {"accelerator": "cpu", "devices": 1, "max_epochs": 1}, Question(flops=1.0))
    shown = capsys.readouterr().out
    assert "data.max_tokens auto: taken as 2048" in shown
    assert "reference cache on disk: " in shown


def stored_peaks() -> dict[str, dict[str, int]]:
    """Of the bundled model on a CPU: case -> variant -> bytes."""
    peaks: dict[str, dict[str, int]] = {}
    for row in json.loads((ROOT / "notebooks/results/bench/plan.json").read_text())["rows"]:
        peaks.setdefault(row["case"], {})[row["variant"]] = row["peak_bytes"]
    return peaks


def test_the_stored_measurements_are_within_15_percent() -> None:
    peaks = stored_peaks()
    assert len(peaks) >= 3
    assert all(abs(peak["planned"] / peak["measured"] - 1) < 0.15 for peak in peaks.values()), peaks


def test_the_documentation_says_what_is_stored() -> None:
    text = (ROOT / "docs/plan.md").read_text()
    for case, peak in stored_peaks().items():
        change = round(100 * (peak["planned"] / peak["measured"] - 1))
        assert f"| {case} | {peak['planned'] / 1e9:.2f} | {peak['measured'] / 1e9:.2f} | {change:+d} % |" in text
