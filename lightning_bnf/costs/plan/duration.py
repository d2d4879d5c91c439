"""How many steps a run has, and how long they take at a rate of computation."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lightning_bnf.costs.plan.gpus import EFFICIENCY, Gpu, gpu_of_device
from lightning_bnf.costs.plan.run import Assessment
from lightning_bnf.costs.plan.step import step_flops
from lightning_bnf.runtime.refusal import Refusal

_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices that a rate is measured with
_SECONDS = 0.5
CPU_EFFICIENCY = 0.6
"""Share of a CPU's rate in matrix products that a run is taken to reach, as with the bundled model on two cores."""


def steps_of(trainer: Mapping[str, Any], rows: int, examples_per_step: int) -> int:
    """Optimizer steps of a run: epochs, `max_steps` and `limit_train_batches` as the Trainer takes them."""
    epoch = -(-rows // examples_per_step)
    limit = trainer.get("limit_train_batches")
    if isinstance(limit, int):
        epoch = min(epoch, limit)
    elif limit is not None:
        epoch = int(epoch * limit)
    most = trainer.get("max_steps", -1)
    epochs = trainer.get("max_epochs")
    if epochs is None:
        epochs = 1000 if most == -1 else -1  # Lightning's own defaults
    total = math.inf if epochs == -1 else epoch * epochs
    if most not in (None, -1):
        total = min(total, most)
    if total == math.inf:
        raise Refusal("trainer.max_epochs must be > 0 without max_steps, else a run has no end, got -1")
    return int(total)


def total_flops(found: Assessment, steps: int, cache: bool = True) -> float | None:
    """Of all devices over the whole run, from the largest micro-batch's operations for a token; None where the tokens
    are not known. `cache`: whether a reference cache is still to be filled."""
    work, loss, reference = found.workload, found.run.loss, found.run.reference
    if work.rows is None or work.tokens is None:
        return None
    cost = step_flops(found.setting)
    of_step = work.tokens / -(-work.rows // found.run.data.step_size_for(work.rows))  # tokens
    besides = 1 if reference in ("copy", "adapter_off") else 0
    passes = besides + len(loss.step_passes) * (1 + besides)
    trained = steps * of_step * (cost.both + passes * cost.forward) / work.batch_tokens
    return trained + (work.tokens * cost.forward / work.batch_tokens if reference == "cache" and cache else 0.0)


@dataclass(frozen=True)
class Rate:
    """FLOP/s that a device is taken to reach in training, and where the number comes from."""

    flops: float
    origin: str


def assumed_rate(device: torch.device, dtype: torch.dtype) -> Rate:
    """Of this machine: a share of its peak, by the table of GPUs, else as matrix products show it."""
    gpu = gpu_of_device(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if gpu is not None:
        return named_rate(gpu)
    share = EFFICIENCY if device.type == "cuda" else CPU_EFFICIENCY
    rate = share * measured_rate(device.type, dtype)
    return Rate(rate, f"assumed: {rate / 1e12:.2g} TFLOP/s, {share:.0%} of this machine's matrix products just now")


def named_rate(gpu: Gpu) -> Rate:
    """Of a GPU in the table."""
    rate = EFFICIENCY * gpu.peak
    origin = f"assumed, not measured: {rate:.0f} TFLOP/s a device, {EFFICIENCY:.0%} of the {gpu.name}'s peak"
    return Rate(1e12 * rate, origin)


def measured_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second of square matrix products on this machine: the most that a run could reach."""
    side = _SIDE[device]
    one = torch.full((side, side), 0.5, device=device, dtype=dtype)  # drawn numbers would move a run's random state
    out = torch.mm(one, one)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        torch.mm(one, one, out=out)
        if device == "cuda":
            torch.cuda.synchronize()
        count += 1
    return count * 2 * side**3 / (time.perf_counter() - started)
