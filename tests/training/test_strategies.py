"""Strategies that are accepted, and checkpoints that are whole or not there."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

from lightning_bnf.policies import LoRAPolicy
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training import strategies
from lightning_bnf.training.strategies import AtomicCheckpointIO, check_shared, parallelism_of
from lightning_bnf.training.support import Combination


def test_other_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match="strategy must be auto, ddp or fsdp2, got FSDPStrategy"):
        parallelism_of(FSDPStrategy())
    with pytest.raises(ValueError, match="strategy must be auto, ddp or fsdp2, got ddp_spawn"):
        parallelism_of(DDPStrategy(start_method="spawn"))


@pytest.mark.parametrize("attention", ["flex_attention", "flash_attention_2"])
def test_attention_for_gpus_is_refused_on_a_cpu(attention: str) -> None:
    found = [
        Combination(LoRAPolicy, "one device", "none", "32-true", kind, attention, "bfloat16").refusal()
        for kind in ("cpu", "cuda")
    ]
    assert found == [f"attention must be sdpa or eager on a CPU, got {attention}", None]


def test_a_checkpoint_is_written_whole(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(3)}, tmp_path / "sub" / "x.ckpt")
    assert torch.load(tmp_path / "sub" / "x.ckpt", weights_only=True)["a"].tolist() == [1, 1, 1]
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["x.ckpt"]


def test_a_checkpoint_on_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": 1}, path)

    def full(checkpoint: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"a": 2}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["x.ckpt"]


def test_nodes_that_share_no_folder_are_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_shared(tmp_path / "run", first=True)
    monkeypatch.setattr(strategies, "gather_objects", lambda value: [value, False])
    with pytest.raises(
        Refusal, match=r"^trainer.default_root_dir must be a folder that all nodes share.* 1 of 2 ranks"
    ):
        check_shared(tmp_path / "run", first=True)
    assert not list((tmp_path / "run").iterdir())
