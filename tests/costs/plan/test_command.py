"""The verb plan: what it says of a run, what it advises, and how it ends."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.planned_runs import a_run

from lightning_bnf.cli.main import main
from lightning_bnf.costs.plan.command import TIGHT, fitting, plan
from lightning_bnf.costs.plan.overhead import fragmentation_of
from lightning_bnf.costs.plan.question import Question
from lightning_bnf.costs.plan.run import assess
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


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
    assert "steps: 4 of 5 rows (10 rows in an epoch)" in shown
    assert "(0.5 TFLOP/s a device, as given)" in shown
    exported = re.search(r"two are kept; (\S+) GB in policy/ at the end in bfloat16, or (\S+)", shown)
    assert exported
    assert float(exported[2]) == pytest.approx(2 * float(exported[1]), rel=0.01)
    assert shown.startswith("fits: ")
    assert " GB on this machine, about " in shown.splitlines()[0]
    assert not (tmp_path / "run").exists()


def test_the_exit_status_says_whether_it_fits(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "--config", config, "--gpus", "2", "--gpu_memory", "80", "--flops", "100"])
    shown = capsys.readouterr().out
    assert "2 x cuda, ddp" in shown
    assert shown.startswith("fits: ")
    assert " of 80 GB, about " in shown.splitlines()[0]
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--config", config, "--gpu_memory", "0.65", "--flops", "100"])
    assert stop.value.code == 1
    shown = capsys.readouterr().out
    assert shown.startswith("does not fit: ")
    assert "model.reference: cache (one more pass over the data)" in shown
    assert "\n               --model.reference cache\n" in shown


def test_rows_may_be_told_instead_of_read(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "--config", config, "--data.train", "somebody/something", "--flops", "1"])
    assert "steps: unknown, as data.train is not a local file; give --rows" in capsys.readouterr().out
    main(["plan", "--config", config, "--data.train", "somebody/something", "--rows", "100", "--flops", "1"])
    assert "steps: 40 of 5 rows (100 rows in an epoch); tokens a step: unknown" in capsys.readouterr().out
    told = ["--rows", "100", "--tokens_per_row", "300"]
    main(["plan", "--config", config, "--data.train", "somebody/something", *told, "--flops", "1"])
    assert "tokens a step: 1,500" in capsys.readouterr().out


def test_a_gpu_by_name_brings_memory_and_rate(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "--config", config, "--gpu", "RTX-4090"])
    first = capsys.readouterr().out.splitlines()[0]
    assert " of 24 GB on GeForce RTX 4090, about 0 s for 10 rows (planned, not measured: a roofline of the Ge" in first
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--config", config, "--gpu", "rtx9999"])
    assert stop.value.code == 2
    assert "gpu must be one of rtx3090, " in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="then this machine's GPU has a rate")
def test_a_gpu_is_never_given_this_machines_speed(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "--config", config, "--gpu_memory", "80"])
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].endswith("of 80 GB; hours unknown without --gpu or --flops")
    assert "; give --gpu NAME or --flops TFLOP/s" in shown


def test_the_budget_is_the_largest_that_fits(tiny_folder: str) -> None:
    """Bytes of 2,048 tokens are the limit: nine tenths of the memory hold them and what is beside, of 4,096 not."""
    run = a_run(tiny_folder, max_tokens=8192, reference="cache")
    process = 1e6
    taken = assess(replace(run, max_tokens=2048))
    memory = 1.001 * (taken.estimate.total + process + fragmentation_of(taken).bytes) / TIGHT
    limited = replace(run, devices=replace(run.devices, memory=memory))
    assert fitting(limited, process).run.max_tokens == 2048
    assert fitting(replace(run, devices=replace(run.devices, memory=1.0)), process).run.max_tokens == 512
    assert fitting(replace(run, devices=replace(run.devices, memory=1e15)), process).run.max_tokens == 8192


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
    assert "data.max_tokens auto: 2048, the most that makes anything faster" in shown
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
