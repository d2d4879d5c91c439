"""Two processes against one: DDP and FSDP2, full and LoRA, by their losses and final weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import tiny_mixture
from support.two_processes import Cell
from transformers import MixtralConfig, PreTrainedTokenizerBase

from lightning_bnf.training.checkpoints import check_checkpoint

pytestmark = pytest.mark.slow

CELLS = [
    Cell(policy, loss, strategy)
    for policy in ("FullPolicy", "LoRAPolicy")
    for loss in ("BNF", "DPO", "KTO")
    for strategy in ("ddp", "fsdp2")
]


def same(found: dict[str, Any], wanted: dict[str, Any], what: str) -> None:
    last = len(found["losses"])
    torch.testing.assert_close(found["losses"], wanted["losses"][-last:], rtol=1e-5, atol=1e-6, msg=what)
    assert set(found["weights"]) == set(wanted["weights"]), what
    for name, value in wanted["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-5, atol=1e-5, msg=f"{what}: {name}")


def alone(cell: Cell) -> Cell:
    return Cell(cell.policy, cell.loss, "auto", cell.reference, mixture=cell.mixture)


def test_two_processes_train_as_one_does(
    two: Any, one: Any, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """A mixture of experts with its routers' loss too, which is of the tokens of all ranks."""
    folder = str(tmp_path / "mixture")
    tiny_mixture(MixtralConfig, len(tokenizer), router_aux_loss_coef=3.0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    cells = [*CELLS, *(Cell("FullPolicy", "SFT", name, "none", mixture=folder) for name in ("ddp", "fsdp2"))]
    wanted = {(cell.policy, cell.loss): one(alone(cell)) for cell in cells if cell.strategy == "ddp"}
    assert all(len(set(result["losses"])) == 10 for result in wanted.values()), "something changes at every step"
    for cell, found in zip(cells, two(cells)):
        same(found, wanted[cell.policy, cell.loss], str(cell))


def test_a_base_in_four_bits_is_cut_and_put_together_again(two: Any, one: Any) -> None:
    """Its packed bytes, under FSDP2; the scales of its blocks are whole on every rank."""
    cells = [Cell("QLoRAPolicy", "BNF", "fsdp2"), Cell("QLoRAPolicy", "DPO", "fsdp2", "copy")]
    for cell, found in zip(cells, two(cells)):
        same(found, one(alone(cell)), str(cell))


def test_two_nodes_of_one_process_do_too(two: Any, one: Any) -> None:
    cells = [Cell("FullPolicy", "BNF", "fsdp2"), Cell("LoRAPolicy", "DPO", "ddp")]
    for cell, found in zip(cells, two(cells, nodes=2)):
        same(found, one(alone(cell)), str(cell))


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_a_checkpoint_goes_on_with_another_number_of_ranks(
    two: Any, one: Any, tmp_path: Path, first: int, second: int
) -> None:
    """Full weights, so that FSDP2's moments are sharded too; after 5 steps on so many ranks 5 on as many others."""
    begun = [Cell("FullPolicy", "BNF", name, steps=5, save=str(tmp_path / f"{name}.ckpt")) for name in ("ddp", "fsdp2")]
    two(begun, ranks=first)
    for cell in begun:
        check_checkpoint(Path(str(cell.save)))
    assert Path(str(begun[1].save)).is_dir()
    wanted = one(alone(begun[0]))
    for found in two([replace(cell, steps=10, save=None, resume=cell.save) for cell in begun], ranks=second):
        assert len(found["losses"]) == 5
        same(found, wanted, f"{first} to {second}")


def test_masters_of_sharded_weights_are_saved_and_gone_on_with(two: Any, tmp_path: Path) -> None:
    """bfloat16 under FSDP2: five steps and five from their checkpoint are ten, to the last bit. What is no weight keeps
    its type."""
    ten = Cell("FullPolicy", "BNF", "fsdp2", precision="bf16-true")
    five = replace(ten, steps=5, save=str(tmp_path / "five.ckpt"))
    first, second, whole = two([five, replace(ten, resume=five.save), ten])
    assert first["losses"] + second["losses"] == whole["losses"]
    assert whole["kept"] == {torch.float64, torch.float32}, "of means, and of the frequencies of rotary positions"
    for name, value in whole["weights"].items():
        assert value.dtype == torch.bfloat16
        assert torch.equal(second["weights"][name], value), name
