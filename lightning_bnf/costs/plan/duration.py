"""How many steps a run has, and how long they take."""

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from lightning_bnf.costs.plan.gpus import EFFICIENCY, Gpu, gpu_of_device
from lightning_bnf.costs.plan.run import Assessment
from lightning_bnf.costs.plan.step import step_work
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


@dataclass(frozen=True)
class Rate:
    """FLOP/s that a device is taken to reach in training, and where the number comes from; `gpu`: whose roofline counts
    instead of the number."""

    flops: float
    origin: str
    gpu: Gpu | None = None


@dataclass(frozen=True)
class Duration:
    """flops: of all devices; seconds: of the run, None where no rate is known; parts: the seconds by what is done in
    them, empty where a rate alone is known."""

    flops: float
    seconds: float | None
    parts: dict[str, float]


class _Passes(NamedTuple):
    """How often a run makes forward and backward pass, and forward passes alone, of its largest micro-batch: in as many
    tokens."""

    both: float
    forward: float


def duration(found: Assessment, steps: int, rate: Rate | None, cache: bool = True) -> Duration | None:
    """Of a run's steps; None where the tokens are not known. `cache`: whether a reference cache is still to be
    filled."""
    passes = _passes(found, steps, cache)
    if passes is None:
        return None
    work, count = step_work(found.setting), found.run.devices.count
    flops = passes.both * work.flops.both + passes.forward * work.flops.forward
    if rate is None:
        return Duration(flops, None, {})
    if rate.gpu is None:
        return Duration(flops, flops / (rate.flops * count), {})
    speed, parts = rate.gpu.speed, defaultdict[str, float](float)
    for times, forward in ((passes.both, False), (passes.forward, True)):
        for kind, seconds in work.seconds(speed, forward).items():
            parts[kind] += seconds * times / count
        parts["memory"] += _unpacked(found, forward) * times / count / speed.memory
    sent = _sent(found, _Passes(max(steps, passes.both / count), passes.forward / count), steps) / speed.links
    parts["optimizer"] = steps * _stepping(found) / speed.memory
    parts["collectives"] = max(0.0, sent - sum(parts.values()) + parts["optimizer"])  # the rest is behind the passes
    return Duration(flops, sum(parts.values()), dict(parts))


def total_flops(found: Assessment, steps: int, cache: bool = True) -> float | None:
    """Of all devices over the whole run, as `duration` has them."""
    known = duration(found, steps, None, cache)
    return None if known is None else known.flops


def _passes(found: Assessment, steps: int, cache: bool) -> _Passes | None:
    work, loss, reference = found.workload, found.run.loss, found.run.reference
    if work.rows is None or work.tokens is None:
        return None
    of_step = work.tokens / -(-work.rows // found.run.data.step_size_for(work.rows))  # tokens
    besides = 1 if reference in ("copy", "adapter_off") else 0
    alone = besides + len(loss.step_passes) * (1 + besides)
    trained = steps * of_step / work.batch_tokens
    stored = min(trained, work.tokens / work.batch_tokens) if reference == "cache" and cache else 0
    return _Passes(trained, alone * trained + stored)


UNPACKING = 5
"""Bytes that are moved for each in which weights lie in 4 bits: itself, and four of weights in 16 bits."""


def _unpacked(found: Assessment, forward: bool) -> float:
    """Bytes that unpacking weights of 4 bits moves in forward and backward pass of a micro-batch, or in one forward."""
    policy = found.run.policy
    passes = 1 if forward else 3 if policy.gradient_checkpointing else 2
    return passes * UNPACKING * found.cost.model_state.weights.get("nf4", 0)


def _stepping(found: Assessment) -> float:
    """Bytes that a device moves in an optimizer's step: weights and state read and written, and gradients read, clipped
    and set to zero."""
    state, devices = found.cost.model_state, found.run.devices
    return (2 * state.gradients + 4 * state.gradients + 2 * state.state) / (devices.count if devices.sharded else 1)


def _sent(found: Assessment, passes: _Passes, steps: int) -> float:
    """Bytes that a device sends to others in the whole run. FSDP2 gathers the weights for each pass over a micro-batch,
    and reduces its gradients in float32; DDP reduces and gathers a step's gradients once."""
    state, devices = found.cost.model_state, found.run.devices
    if devices.parallelism == "one device":
        return 0.0
    others = (devices.count - 1) / devices.count
    if not devices.sharded:
        return steps * 2 * state.gradients * others
    halves = found.run.precision.startswith("bf16") or found.run.policy.dtype != torch.float32
    gathered = state.parameters * (2 if halves else 4)
    return ((2 * passes.both + passes.forward) * gathered + passes.both * 4 * state.trained) * others


def assumed_rate(device: torch.device, dtype: torch.dtype) -> Rate:
    """Of this machine: a share of its peak, by the table of GPUs, else as matrix products show it."""
    gpu = gpu_of_device(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if gpu is not None:
        return named_rate(gpu)
    share = EFFICIENCY if device.type == "cuda" else CPU_EFFICIENCY
    rate = share * measured_rate(device.type, dtype)
    return Rate(rate, f"assumed: {rate / 1e12:.2g} TFLOP/s, {share:.0%} of this machine's matrix products just now")


def named_rate(gpu: Gpu) -> Rate:
    """Of a GPU in the table: what its products reach, and its roofline."""
    return Rate(gpu.speed.products, f"planned, not measured: a roofline of the {gpu.name}", gpu)


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
