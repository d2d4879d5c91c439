"""The exported policy: at the end, after the checkpoints, and never at their cost."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file
from support.commands import refused
from support.training import FAST, Write, train
from transformers import AutoModelForCausalLM

from lightning_bnf.callbacks import ExportPolicy
from lightning_bnf.callbacks import export as exporting
from lightning_bnf.cli.main import main
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import SFT
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.training.optimization import Optimization

pytestmark = pytest.mark.slow


def fit(root: Path, tiny_folder: str, data: str) -> None:
    """Four steps, with a checkpoint after the second and the fourth."""
    saving = ModelCheckpoint(root / "checkpoints", filename="{step}", every_n_train_steps=2, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=4,
        logger=False,
        enable_progress_bar=False,
        default_root_dir=root,
        callbacks=[saving, ExportPolicy()],
    )
    module = PreferenceModule(LoRAPolicy(tiny_folder, r=2), SFT(), optimization=FAST)
    trainer.fit(module, PreferenceData(train=data, examples_per_step=2))


def test_the_policy_is_written_once_at_the_end_and_adapters_as_they_were_trained(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    write = exporting.write_policy

    def counted(*given: Any) -> None:
        tried.append(len(list((tmp_path / "checkpoints").glob("*.ckpt"))))
        write(*given)

    monkeypatch.setattr(exporting, "write_policy", counted)
    fit(tmp_path, tiny_folder, write_pairs(rows=10))
    assert tried == [2], "when both checkpoints were there"
    held = torch.load(tmp_path / "checkpoints/step=4.ckpt", weights_only=True)["state_dict"]
    policy = load_file(tmp_path / "policy/adapter_model.safetensors")
    assert len(policy) == len(held)
    for name, value in policy.items():
        parts = name.replace(".weight", ".default.weight")
        assert torch.equal(value, held[f"policy.model.{parts}"]), "the policy of the last checkpoint"


def test_a_disk_that_takes_no_policy_costs_no_checkpoint(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_policy", full)
    with pytest.raises(OSError, match="No space left"):
        fit(tmp_path, tiny_folder, write_pairs(rows=10))
    assert (tmp_path / "checkpoints/step=4.ckpt").is_file()


@pytest.mark.parametrize(
    ("dtype", "kept"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("auto", torch.float32)]
)
def test_weights_of_16_bits_are_exported_as_they_were_trained_or_rounded(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, dtype: Any, kept: torch.dtype
) -> None:
    """Four steps of a millionth move the masters alone; the folder says the type of what is in it, and the card what
    of the change is left: next to nothing, so that it is not rounded unless that is asked for by name."""
    module = PreferenceModule(
        FullPolicy(tiny_folder, dtype="bfloat16"), SFT(), optimization=Optimization(learning_rate=1e-6)
    )
    callbacks = {"callbacks": [ExportPolicy(dtype=dtype)], "precision": "bf16-true", "max_epochs": -1}
    train(tmp_path, module, PreferenceData(train=write_pairs(rows=10), examples_per_step=2), max_steps=4, **callbacks)
    held = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype="auto").state_dict()
    begun = {
        name: value.bfloat16() for name, value in AutoModelForCausalLM.from_pretrained(tiny_folder).state_dict().items()
    }
    assert {value.dtype for value in held.values()} == {kept}
    moved = {name: (held[name] != begun[name]).double().mean() for name in held if "proj" in name or "head" in name}
    for name, share in moved.items():
        assert share > 0.5 if kept == torch.float32 else share < 0.05, name
    card = (tmp_path / "policy/README.md").read_text()
    found = re.search(r"rounded to bfloat16: .* has cosine (\S+) to the|one would be (\S+)\b", card)
    assert (found is None) == (dtype == "float32")
    assert found is None or 0 < float(found[1] or found[2]) < 0.5
    assert ("float32: what bfloat16 leaves of the change is little" in card) == (dtype == "auto")


def test_a_run_with_nothing_left_says_so_and_keeps_its_metrics(
    tmp_path: Path,
    tiny_folder: str,
    write_pairs: Write,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same command on a finished run; fewer steps than were taken are refused, and leave all as it was."""
    words = ["fit", "--model.source", tiny_folder, "--data.train", write_pairs(rows=8), "--data.examples_per_step", "2"]
    words += ["--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu"]
    main([*words, "--trainer.max_steps", "3"])
    card, config = tmp_path / "run/policy/README.md", tmp_path / "run/config.yaml"
    before, asked = card.read_text(), config.read_text()
    metrics = before.split("## Last metrics")[1].split("## Versions")[0]
    assert "- train/rewards/margins: " in metrics
    with caplog.at_level("INFO"):
        main([*words, "--trainer.max_steps", "3", "--ckpt_path", "last"])
    assert "Nothing was left to train: the checkpoint is of step 3, the last that was asked for." in caplog.text
    again = card.read_text().split("## Last metrics")[1].split("## Versions")[0]
    names = {line.split(":")[0] for line in metrics.splitlines()}
    assert names <= {line.split(":")[0] for line in again.splitlines()}
    message = "trainer.max_steps must be at least 3, the step of the checkpoint to go on from, got 2"
    assert message in refused(capsys, *words, "--trainer.max_steps", "2", "--ckpt_path", "last")
    assert config.read_text() == asked
