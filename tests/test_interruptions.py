"""Runs that are killed, told to end, or lose a rank: as a user starts them, in processes of their own."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.forked import Forked
from support.models import write_pairs_to
from support.training import Write

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
STEPS = 30
KILLS = int(os.environ.get("KILLS", "2"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_folder: str) -> Path:
    """A run of 30 steps that saves every second one; every step's batch is another one, and dropout draws numbers."""
    folder = tmp_path_factory.mktemp("interrupted")
    values = {
        "model": {
            "policy": {
                "class_path": "lightning_bnf.policies.LoRAPolicy",
                "init_args": {"source": tiny_folder, "r": 4, "dropout": 0.1},
            },
            "loss": str(ROOT / "configs/loss/bnf.yaml"),
            "optimization": {"learning_rate": 0.003},
        },
        "data": {"train": write_pairs_to(folder / "train.jsonl", 25), "examples_per_step": 8, "max_tokens": 100},
        "trainer": {
            "accelerator": "cpu",
            "max_steps": STEPS,
            "log_every_n_steps": 1,
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {
                        "filename": "{step}",
                        "every_n_train_steps": 2,
                        "monitor": "step",
                        "mode": "max",
                        "save_top_k": 2,
                        "enable_version_counter": False,
                    },
                }
            ],
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def wanted(config: Path) -> Path:
    """The folder of a run that nobody interrupts, in an interpreter of its own."""
    run = config.parent / "wanted"
    command = [sys.executable, "-m", "lightning_bnf", *words(config, run)]
    subprocess.run(command, check=True, capture_output=True)
    return run


def words(config: Path, run: Path) -> list[str]:
    """`fit` with a config, whose last callback saves the checkpoints, in a run folder."""
    values = yaml.safe_load(config.read_text())
    values["trainer"]["callbacks"][-1]["init_args"]["dirpath"] = str(run / "checkpoints")
    run.parent.mkdir(exist_ok=True)
    own = run.with_suffix(".yaml")
    own.write_text(yaml.safe_dump(values))
    return ["fit", "--config", str(own), "--trainer.default_root_dir", str(run)]


def start(config: Path, run: Path, *more: str) -> Forked:
    return Forked(*words(config, run), *more)


def finish(process: Forked, status: int = 0) -> str:
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == status, shown[-3000:]
    return shown


def wait_for(found: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def steps_of(run: Path) -> list[int]:
    return [int(path.name[5:-5]) for path in (run / "checkpoints").glob("step=*.ckpt")]


def same_end(run: Path, other: Path, lost: int = 0) -> None:
    """Weights bit by bit, and every step's metrics but for `lost` rows: a row is written just after its checkpoint."""
    ours, wanted = (load_file(folder / "policy" / "adapter_model.safetensors") for folder in (run, other))
    assert set(ours) == set(wanted)
    assert all((ours[name] == wanted[name]).all() for name in wanted)
    found, full = (pd.read_csv(folder / "metrics.csv").set_index("step").sort_index(axis=1) for folder in (run, other))
    assert len(full) - lost <= len(found) <= len(full)
    pd.testing.assert_frame_equal(found, full.loc[found.index])


def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(config: Path, wanted: Path, tmp_path: Path) -> None:
    """kill -9, again and again, each time a random while after the run has saved a random step."""
    run, draw = tmp_path / "run", random.Random(1)
    for step in sorted(draw.choices(range(2, STEPS, 2), k=KILLS)):
        process = start(config, run, "--ckpt_path", "last")
        wait_for(lambda: process.returncode is not None or max(steps_of(run), default=0) >= step)  # noqa: B023
        time.sleep(draw.uniform(0, 0.5))
        process.kill()
    finish(start(config, run, "--ckpt_path", "last"))
    assert sorted(steps_of(run))[-1] == STEPS
    same_end(run, wanted, lost=KILLS)


def test_sigterm_saves_and_ends_the_run(config: Path, wanted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(config, run)
    wait_for(lambda: bool(steps_of(run)))
    process.send_signal(signal.SIGTERM)
    shown = finish(process, 143)
    assert "SIGTERM: saved" in shown
    assert max(steps_of(run)) < STEPS
    finish(start(config, run, "--ckpt_path", "last"))
    same_end(run, wanted)


def test_an_interrupted_run_compares_with_the_same_start(config: Path, tmp_path: Path, write_pairs: Write) -> None:
    """Ctrl-C after the first checkpoint; the run that goes on prints the same table of before and after. And when the
    completions at the end are ended, policy and plots are there already."""
    rows = [json.loads(line) for line in Path(write_pairs("plain.jsonl")).read_text().splitlines()]
    extra = {"verifier": {"name": "ends_with_question"}, "max_new_tokens": 4, "family": "f"}
    test = tmp_path / "test.jsonl"
    test.write_text("".join(json.dumps(row | extra) + "\n" for row in rows))
    values = yaml.safe_load(config.read_text())
    values["data"]["test"] = str(test)
    scoring = {"splits": ["test"], "compare": True, "temperature": 1.0, "pairs": 4}
    values["trainer"]["callbacks"].insert(
        0, {"class_path": "lightning_bnf.callbacks.ScorePrompts", "init_args": scoring}
    )
    scored = tmp_path / "scored.yaml"
    scored.write_text(yaml.safe_dump(values))
    wanted, run = tmp_path / "wanted", tmp_path / "run"
    finish(start(scored, wanted))
    process = start(scored, run)
    wait_for(lambda: bool(steps_of(run)))
    process.send_signal(signal.SIGINT)
    shown = finish(process, 130)
    assert "a checkpoint is saved after this step" in shown
    assert "SIGINT: saved" in shown
    assert not (run / "before_after.md").exists()
    finish(start(scored, run, "--ckpt_path", "last"))
    for name in ("before.json", "before_after.md", "completions.jsonl"):
        assert (run / name).read_text() == (wanted / name).read_text(), name


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_others(config: Path, tmp_path: Path, victim: int) -> None:
    """Long before the run's own end, and with a message."""
    run = tmp_path / "run"
    process = start(config, run, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_steps", "100000")
    wait_for(lambda: bool(steps_of(run)))
    (child,) = (int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    os.kill((process.pid, child)[victim], signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{child}").exists())
    shown, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    # Whichever notices first says it: the collective that lost its peer, the watch of a rank over its parent, or the
    # launcher's over its children.
    assert re.search(r"by peer|has died|terminated with code -9", shown), shown[-2000:]


def test_two_processes_from_the_command_line_export_what_one_does(config: Path, tmp_path: Path) -> None:
    """Plain `fit` starts the second process itself; a run of 4 steps under FSDP2 goes on to 10 and is exported."""
    wanted, run = tmp_path / "wanted", tmp_path / "run"
    exact = ["--model.policy.init_args.dropout", "0", "--model.optimization.schedule", "constant"]
    exact += ["--model.optimization.warmup_ratio", "0", "--trainer.max_steps"]
    finish(start(config, wanted, *exact, "10"))
    two = ["--trainer.strategy", "fsdp2", "--trainer.devices", "2", *exact]
    finish(start(config, run, *two, "4"))
    finish(start(config, run, *two, "10", "--ckpt_path", "last"))
    begun, alone = (json.loads((folder / "fingerprints.json").read_text()) for folder in (run, wanted))
    assert begun == alone, "the base's fingerprint, of shards as of whole weights"
    ours, other = (load_file(folder / "policy" / "adapter_model.safetensors") for folder in (run, wanted))
    assert set(ours) == set(other)
    for name, value in other.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-5)
    found, full = (pd.read_csv(folder / "metrics.csv").set_index("step") for folder in (run, wanted))
    assert list(found.index) == list(full.index)
    torch.testing.assert_close(
        torch.tensor(found["train/loss"]), torch.tensor(full["train/loss"]), rtol=1e-4, atol=1e-5
    )
