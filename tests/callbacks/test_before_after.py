"""The before/after report on a tiny model: what is chosen, written and said."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_bnf.callbacks import BeforeAfter
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy
from lightning_bnf.training.optimization import Optimization


def fit(root: Path, folder: str, data: PreferenceData, callback: BeforeAfter) -> None:
    torch.manual_seed(1)
    module = PreferenceModule(LoRAPolicy(folder), BNF(), optimization=Optimization(learning_rate=1e-2))
    Trainer(
        accelerator="cpu",
        default_root_dir=root,
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[callback],
    ).fit(module, data)


def test_the_report_follows_the_policy(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    """Trained on the very test pairs, chosen log-probs rise and rejected fall, row by row."""
    pairs = write_pairs()
    prompts = tmp_path / "prompts.jsonl"
    row = {"prompt": [{"role": "user", "content": "Hi"}], "verifier": {"name": "question"}, "max_new_tokens": 4}
    prompts.write_text(2 * (json.dumps(row) + "\n"))
    data = PreferenceData(train=pairs, test=[str(prompts), pairs], examples_per_step=5)
    fit(tmp_path, tiny_folder, data, BeforeAfter(pairs=4))
    result = json.loads((tmp_path / "before_after.json").read_text())
    lines = {line["measure"]: line for line in result["lines"]}
    assert lines["mean log-prob of chosen (nats a token)"]["n"] == 4
    assert lines["mean log-prob of chosen (nats a token)"]["low"] > 0
    assert lines["mean log-prob of rejected (nats a token)"]["high"] < 0
    assert result["settings"]["steps"] == 3
    assert result["settings"]["minutes"] >= 0
    # the same prompt twice is one prompt
    assert len((tmp_path / "completions.jsonl").read_text().splitlines()) == 2


def test_data_without_test_files_is_refused(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="callback BeforeAfter: accepted is data with test files"):
        fit(tmp_path, tiny_folder, PreferenceData(train=write_pairs()), BeforeAfter())
