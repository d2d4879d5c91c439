"""Models of shapes, and what torch's alarm is heard of."""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.turns import Few
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from lightning_bnf.costs.bench import trainings
from lightning_bnf.costs.bench.trainings import TOY, _Waits, model_folder

pytestmark = pytest.mark.slow


def test_a_model_of_a_shape_is_made_once(tiny_folder: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Of 64 numbers wide, 2 layers, embeddings that are the head too: as many rows of them as the tokenizer has."""
    folder = model_folder(TOY, tiny_folder, str(tmp_path), "cpu")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == torch.bfloat16
    layer = 2 * 64 * (64 + 32) + 3 * 64 * 128 + 2 * 64
    assert sum(p.numel() for p in model.parameters()) == len(tokenizer) * 64 + 2 * layer + 64
    (Path(folder) / "mark").touch()
    assert model_folder(TOY, tiny_folder, str(tmp_path), "cpu") == folder
    assert (Path(folder) / "mark").exists()


def test_waits_are_counted_until_the_optimizer_and_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(trainings, "_alarm", modes.append)
    trainer: Any = SimpleNamespace(callback_metrics={"train/loss": 1.0})
    turns = Few(1)
    heard: Any = _Waits(turns)
    heard.on_train_batch_start(trainer, None, None, 0)
    warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
    warnings.warn("something else", stacklevel=1)
    heard.on_before_optimizer_step(trainer, None, None)
    warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
    heard.on_train_batch_end(trainer, None, None, SimpleNamespace(micro_batches=[]), 0)
    (told,) = turns.told
    assert (told["waits_before_optimizer"], told["waits"]) == (1, 2)
    assert all("test_trainings.py:" in place for place in told["places"])
    assert modes == ["warn", "default"]
