"""The verb plan: what it says of a run, what it advises, and how it ends."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import LlamaConfig

from lightning_bnf.cli.main import main
from lightning_bnf.costs.plan.advice import advice, with_checkpointing
from lightning_bnf.costs.plan.command import HOLES, Question, devices_of, fragmentation_of, overhead_of, plan, run_of
from lightning_bnf.costs.plan.duration import measured_rate, steps_of, total_flops
from lightning_bnf.costs.plan.estimate import Devices, estimate
from lightning_bnf.costs.plan.held import Held
from lightning_bnf.costs.plan.run import Run, assess
from lightning_bnf.costs.plan.step import Phase, StepCost, step_flops
from lightning_bnf.costs.plan.workload import of_budget
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF, DPO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy

ROOT = Path(__file__).parents[3]
HELD = Held({"float32": 100}, 20, 60, 40, 80, gathered=7, parameters=30, trained=5)
COST = StepCost(HELD, (Phase("forward pass", 0, 80, 50), Phase("check before step 1", 0, 0, 10)), saved=30)


def parts(devices: Devices, cost: StepCost = COST) -> dict[str, float]:
    return {part.name: part.bytes for part in estimate(cost, devices).parts}


def test_one_device_holds_everything() -> None:
    assert parts(Devices("cuda")) == {
        "weights (float32)": 100,
        "adapters": 20,
        "reference copy": 60,
        "AdamW's moments": 80,
        "activations": 30,
        "head's tile, temporaries": 20,
    }
    assert estimate(COST, Devices("cuda")).total == 310


def test_the_phase_that_takes_most_is_taken() -> None:
    check = Phase("check before step 1", 0, 0, 200)
    found = estimate(replace(COST, phases=(*COST.phases, check)), Devices("cuda"))
    assert (found.phase, found.total) == ("check before step 1", 100 + 20 + 60 + 200)


def test_sharding_divides_what_is_held_and_ddp_does_not() -> None:
    found = parts(Devices("cuda", 4, "fsdp2"))
    assert found == {
        "weights (float32)": 25,
        "adapters": 5,
        "reference copy": 15,
        "gradients": 10,
        "AdamW's moments": 20,
        "activations": 30,
        "head's tile, temporaries": 20,
        "layers gathered at once": 7,
    }
    assert parts(Devices("cuda", 4, "ddp")) == parts(Devices("cuda")) | {"DDP's buckets": 40}


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
    with pytest.raises(ValueError, match="strategy deepspeed: accepted are auto, ddp and fsdp2"):
        devices_of({"strategy": "deepspeed"}, Question(gpus=2))


@pytest.mark.parametrize("name", ["gpus", "gpu_memory", "flops", "rows", "tokens_per_row"])
def test_numbers_are_above_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} 0: accepted are numbers > 0"):
        Question(**{name: 0})


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"max_epochs": 2}, 8),  # 10 rows, 3 a step: 4 steps an epoch
        ({"max_epochs": 2, "max_steps": 5}, 5),
        ({"max_epochs": 2, "max_steps": -1, "limit_train_batches": 3}, 6),
        ({"max_epochs": 1, "limit_train_batches": 0.5}, 2),
        ({"max_epochs": None, "max_steps": 7}, 7),
        ({"max_epochs": None}, 4000),
    ],
)
def test_steps_are_the_trainers(trainer: Any, expected: int) -> None:
    assert steps_of(trainer, 10, 3) == expected


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="accepted is one of them"):
        steps_of({"max_epochs": -1}, 10, 3)


def a_run(source: str, train: str | None = None, **changes: Any) -> Run:
    module = PreferenceModule(FullPolicy(source), changes.pop("loss", DPO(beta=0.1)), changes.pop("reference", "auto"))
    data = PreferenceData(train, examples_per_step=5, max_tokens=changes.pop("max_tokens", 4096))
    return run_of(module, data, {"accelerator": "cpu", "devices": 1} | changes, Question())


def test_the_workload_is_that_of_the_runs_own_steps(tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    """All rows of a step fit into one micro-batch; padding included it has rows x longest tokens. A budget of one token
    makes a micro-batch of every row."""
    run = a_run(tiny_folder, write_pairs(rows=10))
    work = run.workload()
    assert (work.rows, work.layout, work.accumulating) == (10, "shared_prompt", False)
    assert len(work.batch.inputs["input_ids"]) == 5
    assert work.batch_tokens <= work.tokens <= 2 * work.batch_tokens
    assert work.scored == sum(sum(c.completion_mask) for row in run.rows for c in row.completions)
    single = replace(run, max_tokens=1).workload()
    assert single.accumulating
    assert len(single.batch.inputs["input_ids"]) == 1
    assert single.tokens < work.tokens, "nothing is padded"


def test_without_rows_the_budget_is_filled() -> None:
    """8192 tokens in rows of at most 4096: two of them; 12 rows of 100 tokens are below that."""
    data = PreferenceData(examples_per_step=12, max_tokens=8192)
    work = of_budget(data, BNF(), "", 8192, 2, rows=100, tokens_per_row=100.0)
    assert tuple(work.batch.inputs["input_ids"].shape) == (2, 4096)
    assert (work.rows, work.tokens, work.accumulating) == (100, 10_000, False)
    assert of_budget(data, BNF(), "", 8192, 1, None, None).accumulating


def test_operations_are_summed_over_steps_and_passes(tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    """10 rows, 5 a step, so half of the epoch's tokens in each of 3 steps; a copy adds a forward pass to each, a cache
    one over the epoch."""
    run = a_run(tiny_folder, write_pairs(rows=10))
    found = assess(run)
    flops, work = step_flops(found.setting), found.workload
    epoch = work.tokens / work.batch_tokens
    assert total_flops(found, 3) == pytest.approx(3 * epoch / 2 * (flops.both + flops.forward))
    cached = assess(replace(run, reference="cache"))
    assert total_flops(cached, 3) == pytest.approx(3 * epoch / 2 * flops.both + epoch * flops.forward)


def test_the_rate_is_measured_in_products() -> None:
    assert 1e8 < measured_rate("cpu", torch.float32) < 1e14


def test_advice_is_what_takes_less_sorted_and_computed(tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    run = a_run(tiny_folder, write_pairs(rows=10))
    found = assess(run)
    given = advice(found)
    *single, together = given
    totals = {one.what.split(" (")[0]: one.total for one in single}
    assert list(totals.values()) == sorted(totals.values())
    assert max(totals.values()) < found.estimate.total
    cached = assess(replace(run, reference="cache")).estimate.total
    assert totals["model.reference: cache"] == cached
    assert {
        "trainer.precision: bf16-true",
        "model.policy: LoRAPolicy, rank 16",
        "model.policy: QLoRAPolicy, rank 16",
    } < set(totals)
    assert together.what.startswith("together: ")
    assert together.total < cached


@pytest.mark.parametrize(("memory", "count"), [(1e12, 2), (1.0, 8)])
def test_more_devices_are_the_fewest_that_suffice(tmp_path: Path, memory: float, count: int) -> None:
    """Where even eight times as many do not suffice, these; of a model whose layers are most of it."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    LlamaConfig(vocab_size=32, num_hidden_layers=24, **sizes).save_pretrained(tmp_path)
    run = a_run(str(tmp_path), max_tokens=32, reference="cache")
    found = assess(replace(run, devices=replace(run.devices, memory=memory)))
    (sharded,) = (one for one in advice(found) if "fsdp2" in one.what)
    assert sharded.what.startswith(f"{count} devices")
    held = found.cost.held
    assert sharded.total > (held.standing + held.gradients + held.moments) / count


def test_holes_are_a_share_of_what_comes_and_goes(tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    found = assess(a_run(tiny_folder, write_pairs(rows=10)))
    phases = (Phase("forward pass", 0, 0, 300), Phase("backward pass", 0, 0, 1000), Phase("optimizer's step", 0, 0, 20))
    light = replace(found, cost=replace(COST, phases=phases))
    assert fragmentation_of(light).bytes == HOLES * 1000
    assert fragmentation_of(replace(light, run=replace(light.run, devices=Devices("cuda")))).bytes == 0


def test_the_process_itself_is_counted() -> None:
    assert 5e7 < overhead_of("cpu").bytes < 1e10
    assert overhead_of("cuda").bytes > 0


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
    for line in ("weights (float32)", "reference copy", "AdamW's moments", "activations", "interpreter, libraries"):
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
    assert "accepted are 32-true, bf16-mixed and bf16-true" in capsys.readouterr().err


def test_checkpointing_changes_a_copy(tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    run = a_run(tiny_folder, write_pairs())
    assert with_checkpointing(run, True).policy.gradient_checkpointing
    assert not run.policy.gradient_checkpointing


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


def test_the_readme_says_what_is_stored() -> None:
    text = (ROOT / "README.md").read_text()
    for case, peak in stored_peaks().items():
        change = round(100 * (peak["planned"] / peak["measured"] - 1))
        assert f"| {case} | {peak['planned'] / 1e9:.2f} | {peak['measured'] / 1e9:.2f} | {change:+d} % |" in text
