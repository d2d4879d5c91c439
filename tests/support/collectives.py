"""Ranks in processes of their own whose collectives are recorded, or refused where NCCL would: started by name."""

import os
import random
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import DPO, NLLPLL
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy
from lightning_bnf.policies.base import evaluating
from lightning_bnf.runtime import distributed
from lightning_bnf.training import budget
from lightning_bnf.training.optimization import Optimization

_OF_FSDP2 = ("all_gather_single", "reduce_scatter_single", "all_gather_into_tensor", "reduce_scatter_tensor")
COLLECTIVES = [
    name for name in ("all_reduce", "all_gather", "broadcast", "barrier", *_OF_FSDP2) if hasattr(dist, name)
]  # some versions of torch have these names, some those


def _as_torchrun_does(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": "2"}
    os.environ |= {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["TORCHELASTIC_RUN_ID"] = "test"


def _noting(calls: list[str], name: str, call: Any) -> Any:
    def noted(*args: Any, **options: Any) -> Any:
        shapes = [tuple(one.shape) for one in (*args, *options.values()) if isinstance(one, Tensor)]
        calls.append(f"{name} {shapes}")
        return call(*args, **options)

    return noted


def _recording(calls: list[str]) -> None:
    """All collectives of torch are noted, with the shapes of what they are given."""
    for name in COLLECTIVES:
        setattr(dist, name, _noting(calls, name, getattr(dist, name)))
    gather: Any = dist.all_gather_object

    def objects(found: list[Any], value: Any, *args: Any, **options: Any) -> None:
        calls.append("all_gather_object")  # of other sizes on each rank
        before = len(calls)
        gather(found, value, *args, **options)
        del calls[before:]

    dist.all_gather_object = objects  # type: ignore[assignment]


def _noise(rank: int, tried: list[int]) -> None:
    """Memory is made up: 1 MB a token, 10 GB free; from the third dry step on the second rank's is 5 % above it."""

    def peak(run: Callable[[], None], device: torch.device) -> float:
        run()
        tried.append(len(tried))
        value = [300e6, 600e6, 7.9e9, 5e9][min(len(tried) - 1, 3)]
        return 8.1e9 if rank == 1 and len(tried) == 3 else value * random.Random(rank).uniform(0.99, 1.0)

    budget.peak_bytes = peak  # type: ignore[assignment]
    budget.taken_bytes = lambda _: 0
    budget.available_bytes = lambda _: int(10e9)
    budget.MOST_TOKENS = {"cpu": 100_000}


def _module_and_data(model: str, data: str, fused: bool = False) -> tuple[PreferenceModule, PreferenceData]:
    loss, reference = (NLLPLL(), "none") if fused else (DPO(), "copy")
    module = PreferenceModule(FullPolicy(model), loss, reference, Optimization(learning_rate=1e-3))  # type: ignore[arg-type]
    return module, PreferenceData(data, examples_per_step=17, max_tokens="auto")


def two_searches(rank: int, port: int, model: str, data: str, folder: str) -> None:
    """Writes to a file what a rank found, and which collectives it called."""
    _as_torchrun_does(rank, port)
    found = _on_a_group_that_refuses_cpu_tensors(rank, model, data)
    dist.destroy_process_group()
    torch.save(found | _noisy_fsdp2(rank, model, data, folder), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def _on_a_group_that_refuses_cpu_tensors(rank: int, model: str, data: str) -> dict[str, Any]:
    """Layout and budget where the only group is one of GPUs, as under NCCL; objects go by a group of their own, which
    NCCL takes through the device."""
    dist.init_process_group("cuda:gloo", rank=rank, world_size=2)
    by_way_of_the_device = dist.new_group(backend="gloo")
    gather: Any = dist.all_gather_object
    dist.all_gather_object = lambda found, value: gather(found, value, by_way_of_the_device)  # type: ignore[assignment]
    refused = ""
    try:
        dist.all_reduce(torch.zeros(1))
    except RuntimeError as error:
        refused = str(error)
    assert distributed.several()
    module, rows = _module_and_data(model, data, fused=True)
    rows.meet(module)
    module.policy.load()
    split = rows.split("train")
    fits = rows.needs.fitting
    layout = fits.layout("auto", split, (1, -1))
    found = fits.budget(split, layout, module.loss, 17)
    dist.all_gather_object = gather
    return {"budget": found.max_tokens, "refused": refused}


def _noisy_fsdp2(rank: int, model: str, data: str, folder: str) -> dict[str, Any]:
    """A run of two steps under FSDP2 with `max_tokens: auto`."""
    calls: list[str] = []
    tried: list[int] = []
    _recording(calls)
    _noise(rank, tried)
    module, rows = _module_and_data(model, data)
    settings: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        accelerator="cpu",
        strategy="fsdp2",
        devices=2,
        precision="bf16-mixed",
        max_steps=2,
        max_epochs=-1,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        **settings,
    )
    trainer.fit(module, rows)
    batch = next(iter(rows.train_dataloader())).micro_batches[0]
    with evaluating(module.policy):
        module.policy(batch)
    kinds = {
        f"{p.dtype} {'sharded' if isinstance(p, DTensor) else 'whole'}" for p in module.policy.trainable().values()
    }
    return {"calls": calls, "tried": tried, "types": sorted(kinds)}
