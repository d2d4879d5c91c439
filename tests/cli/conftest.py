"""A config of a small run, as the commands that read one get it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.training import Write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> Callable[..., str]:
    """Writes a config of a small run and returns its path; dotted keyword arguments replace entries."""

    def write(**changes: Any) -> str:
        values: dict[str, Any] = {
            "model": {
                "policy": {
                    "class_path": "lightning_bnf.policies.LoRAPolicy",
                    "init_args": {"source": tiny_folder, "r": 4},
                },
                "loss": str(ROOT / "configs/loss/bnf.yaml"),
                "optimization": {"learning_rate": 0.01},
            },
            "data": {"train": write_pairs(rows=10), "examples_per_step": 5},
            "trainer": {
                "accelerator": "cpu",
                "max_epochs": 2,
                "default_root_dir": str(tmp_path / "run"),
                "log_every_n_steps": 1,
            },
        }
        for key, value in changes.items():
            *path, last = key.split("__")
            entry = values
            for name in path:
                entry = entry[name]
            entry[last] = value
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(values))
        return str(file)

    return write
