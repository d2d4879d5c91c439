"""A whole fit on a disk that fills at some write of it: a sentence names the path, nothing is half-written, and once
there is room the run goes on to the end of one that always had room.

DISK_SIZES=20 tries so many sizes; by default it is two.
"""

import os
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.disk import small_disk
from support.training import Write

from lightning_bnf.cli.main import main
from lightning_bnf.runtime.files import half_written
from lightning_bnf.training.checkpoints import check_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.drawing]

ROOT = Path(__file__).parents[1]
SIZES = int(os.environ.get("DISK_SIZES", "2"))


@pytest.fixture
def config(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> str:
    """Six steps, with a validation and a checkpoint after every second one."""
    values = {
        "model": {
            "policy": {"class_path": "lightning_bnf.policies.LoRAPolicy", "init_args": {"source": tiny_folder, "r": 8}},
            "loss": str(ROOT / "configs/loss/bnf.yaml"),
            "optimization": {"learning_rate": 0.003},
        },
        "data": {"train": write_pairs(rows=12), "validation": write_pairs("v.jsonl"), "examples_per_step": 2},
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "val_check_interval": 2, "log_every_n_steps": 1},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def end_of(run: Path) -> tuple[dict[str, torch.Tensor], pd.DataFrame]:
    metrics = pd.read_csv(run / "metrics.csv").sort_index(axis=1)
    return load_file(run / "policy" / "adapter_model.safetensors"), metrics


def test_a_disk_that_fills_under_a_fit(tmp_path: Path, config: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config", config, "--trainer.default_root_dir"]
    main([*words, str(tmp_path / "wanted")])
    weights, metrics = end_of(tmp_path / "wanted")
    used = sum(4096 * (1 + path.stat().st_size // 4096) for path in (tmp_path / "wanted").rglob("*"))
    for i in range(SIZES):
        size = 8192 + (used - 8192) * i // SIZES
        disk = tmp_path / f"disk of {size}"
        with small_disk(disk, size) as make_room:
            capfd.readouterr()
            with pytest.raises(SystemExit) as stop:
                main([*words, str(disk / "run")])
            said = capfd.readouterr().err
            assert stop.value.code == 2, said
            assert "Traceback" not in said
            assert f"error: {disk}/run" in said, said[-2000:]
            left = [path for path in (disk / "run").rglob("*") if half_written(path)]
            assert left == []
            for checkpoint in (disk / "run").rglob("*.ckpt"):
                check_checkpoint(checkpoint)
            make_room()
            main([*words, str(disk / "run"), "--ckpt_path", "last"])
            found, measured = end_of(disk / "run")
            assert all(torch.equal(value, found[name]) for name, value in weights.items())
            pd.testing.assert_frame_equal(measured, metrics)
