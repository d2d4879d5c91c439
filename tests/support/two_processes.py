"""What tests run in processes of their own: started processes import it by this name."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer

from lightning_bnf import losses, policies
from lightning_bnf.callbacks import RunReport
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import base
from lightning_bnf.policies.sharding import fill, load_empty
from lightning_bnf.runtime.distributed import gather, whole
from lightning_bnf.training.optimization import Optimization
from lightning_bnf.training.strategies import AtomicCheckpointIO

LOAD_MODEL = base.load_model


def gather_some(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    own = torch.arange(3) if rank == 0 else torch.tensor([7])
    torch.save([*gather(own), *gather(torch.zeros(0, 2) if rank == 0 else torch.ones(1, 2))], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def first_fails(rank: int, folder: str, source: str) -> None:
    """Each rank writes down the errors with which loading ends where the first one's reading does, or its weights are
    not those of the model."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    lost, cut, more = (policies.FullPolicy(source) for _ in range(3))
    if rank == 0:
        lost.base = refuse_to_read  # type: ignore[method-assign]
    found: list[str] = []

    def note(work: Callable[[], Any]) -> None:
        try:
            work()
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")

    note(lambda: load_empty(lost))
    weights = load_empty(cut)
    note(lambda: fill([cut], dict(list(weights.items())[1:]), torch.device("cpu")))
    weights = load_empty(more)
    note(lambda: fill([more], weights | ({"other": torch.ones(1)} if rank == 0 else {}), torch.device("cpu")))
    Path(folder, f"{rank}.txt").write_text("\n".join(found))
    dist.destroy_process_group()


@dataclass(frozen=True)
class Cell:
    """A run of some steps: what is trained how, and which step's checkpoint it begins at, if any."""

    policy: str
    loss: str
    strategy: str
    reference: str = "auto"
    steps: int = 10
    resume: str | None = None
    save: str | None = None
    dropout: float = 0.0
    precision: str = "32-true"
    report: str | None = None
    """The folder inside the test's of a run whose page is written."""
    mixture: str | None = None
    """The folder of a mixture of experts that is trained instead, with its routers' loss."""


def refuse_to_read(*_: Any) -> None:
    raise AssertionError("under FSDP2 the first rank alone reads the model")


def run_cell(cell: Cell, model: str, data: str, devices: int, num_nodes: int, folder: str) -> dict[str, Any]:
    """Trains a cell; returns its losses step by step, the trained weights, whole, and the types of buffers and sums."""
    torch.manual_seed(1)
    reads_all = (
        cell.strategy != "fsdp2" or cell.policy == "QLoRAPolicy" or not dist.is_initialized() or dist.get_rank() == 0
    )
    base.load_model = LOAD_MODEL if reads_all else refuse_to_read  # type: ignore[assignment]
    lora: dict[str, Any] = {"dropout": cell.dropout} if cell.policy == "LoRAPolicy" else {}
    lora |= {"dtype": "float32"} if cell.policy == "QLoRAPolicy" else {}
    policy = getattr(policies, cell.policy)(cell.mixture or model, **lora)
    optimization = Optimization(learning_rate=1e-3, schedule="constant", warmup_ratio=0.0, max_grad_norm=0.5)
    loss = getattr(losses, cell.loss)()
    module = PreferenceModule(
        policy,
        loss,
        cell.reference,
        optimization,
        reference_cache=f"{folder}/cache-{cell.policy}",
        router_loss=cell.mixture is not None,
    )
    record = Losses()
    trainer = Trainer(
        accelerator="cpu",
        strategy=cell.strategy,
        devices=devices,
        num_nodes=num_nodes,
        precision=cell.precision,  # type: ignore[arg-type]
        max_steps=cell.steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=f"{folder}/{cell.report}" if cell.report else folder,
        callbacks=[record, RunReport(rows=3)] if cell.report else [record],
        plugins=[AtomicCheckpointIO()] if cell.strategy == "ddp" else [],
    )
    # Adam makes steps of rounding in embeddings that hardly have a gradient, so that what is shared has no part in it.
    layout = "padded" if cell.mixture else "auto"
    rows = PreferenceData(data, examples_per_step=5, max_tokens=100, layout=layout)
    trainer.fit(module, rows, ckpt_path=cell.resume, weights_only=True)
    if cell.save:
        trainer.save_checkpoint(cell.save)
    weights = {name: whole(value.detach()).clone() for name, value in policy.trainable().items()}
    kept = {module.means.sums.dtype, *(buffer.dtype for buffer in policy.buffers())}
    return {"losses": record.found, "weights": weights, "kept": kept}


class Losses(Callback):
    """Keeps every step's loss."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.found.append(float(trainer.callback_metrics["train/loss"]))


def run_cells(
    rank: int, port: int, ranks: int, nodes: int, cells: list[Cell], model: str, data: str, folder: str
) -> None:
    """A rank as torchrun starts it: all on one node, or one on each."""
    torch.set_num_threads(1)
    local = 0 if nodes > 1 else rank
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(local),
        "GROUP_RANK": str(rank - local),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks // nodes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    found = [run_cell(cell, model, data, ranks // nodes, nodes, folder) for cell in cells]
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()
