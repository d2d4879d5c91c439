"""The verb `plan`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lightning_bnf.costs.plan.advice import advice, with_checkpointing
from lightning_bnf.costs.plan.duration import measured_rate, steps_of, total_flops
from lightning_bnf.costs.plan.estimate import Devices
from lightning_bnf.costs.plan.overhead import fragmentation_of, overhead_of
from lightning_bnf.costs.plan.report import GB, advice_list, heading, memory_table, steps_line
from lightning_bnf.costs.plan.run import Assessment, Run, assess
from lightning_bnf.costs.plan.workload import local_rows
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.arguments import PositiveFloat, PositiveInt, checked
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.fitting import MOST_TOKENS
from lightning_bnf.training.strategies import Parallelism, parallelism_of
from lightning_bnf.training.support import Combination

TIGHT = 0.9  # of the memory


@checked
@dataclass(frozen=True)
class Question:
    """What is asked of `plan` beside a config.

    Args:
        gpus: Number of GPUs; null takes the Trainer's devices.
        gpu_memory: Memory of each device in GB (10^9 bytes); null asks for no verdict.
        flops: Rate that each device reaches in training, in TFLOP/s; null measures matrix products on this machine.
        rows: Number of training rows; then the data are not read. Null counts them where they are local files.
        tokens_per_row: Mean tokens of a row with all its completions; the same.
    """

    gpus: PositiveInt | None = None
    gpu_memory: PositiveFloat | None = None
    flops: PositiveFloat | None = None
    rows: PositiveInt | None = None
    tokens_per_row: PositiveFloat | None = None


def devices_of(trainer: Mapping[str, Any], question: Question) -> Devices:
    """Where the run is to be: what `question` says, else the Trainer's settings."""
    accelerator = trainer.get("accelerator", "auto")
    asked = question.gpus is not None or question.gpu_memory is not None
    cuda = accelerator in ("cuda", "gpu") or (accelerator == "auto" and (asked or torch.cuda.is_available()))
    count = question.gpus or _devices(trainer.get("devices", "auto")) * int(trainer.get("num_nodes") or 1)
    memory = None if question.gpu_memory is None else question.gpu_memory * GB
    return Devices("cuda" if cuda or question.gpus else "cpu", count, _spread(trainer.get("strategy"), count), memory)


def _devices(devices: Any) -> int:
    """Of a node; `auto` counts those of this machine."""
    if isinstance(devices, list):
        return len(devices)
    if str(devices).lstrip("-").isdigit() and int(devices) > 0:
        return int(devices)
    return max(torch.cuda.device_count(), 1)


def _spread(strategy: Any, count: int) -> Parallelism:
    if count == 1:
        return "one device"
    if not isinstance(strategy, str | None):
        return parallelism_of(strategy)  # an object, which the config gave by its class
    name = strategy or "auto"
    if name == "fsdp2":
        return "fsdp2"
    if name == "auto" or name.startswith("ddp"):
        return "ddp"
    raise Refusal(f"strategy must be auto, ddp or fsdp2, got {name}")


def run_of(module: PreferenceModule, data: PreferenceData, trainer: Mapping[str, Any], question: Question) -> Run:
    """The run that a fit of these would be."""
    devices = devices_of(trainer, question)
    precision = str(trainer.get("precision") or "32-true")
    policy = module.policy
    refusal = Combination(
        type(policy), devices.parallelism, module.reference_kind, precision, devices.kind, policy.attention
    ).refusal()
    if refusal:
        raise Refusal(refusal)
    told = question.rows is not None or question.tokens_per_row is not None
    rows = None if told else local_rows(data, policy, module.loss)
    if rows is not None and not rows:
        raise DataError("data.train must be at least one row to train on, got none")
    return Run(
        policy=policy,
        loss=module.loss,
        reference=module.reference_kind,
        optimization=module.optimization,
        optimizer=module.optimizer_factory,
        data=data,
        precision=precision,
        devices=devices,
        max_tokens=MOST_TOKENS[devices.kind] if data.max_tokens == "auto" else data.max_tokens,
        rows=rows,
        count=question.rows,
        tokens_per_row=question.tokens_per_row,
    )


def plan(module: PreferenceModule, data: PreferenceData, trainer: Mapping[str, Any], question: Question) -> bool:
    """Print what a run takes; returns whether it fits, or True where no memory was given."""
    process = overhead_of(devices_of(trainer, question).kind)  # before there is anything else
    run = run_of(module, data, trainer, question)
    found = assess(run)
    print(heading(found))
    if data.max_tokens == "auto":
        print(f"data.max_tokens auto: taken as {run.max_tokens}, the most it chooses; it takes less where less is free")
    print("\nGB of each device:")
    beside = [process, fragmentation_of(found)]
    print(memory_table(found.estimate, beside))
    other = assess(with_checkpointing(run, not run.policy.gradient_checkpointing))
    word = "without" if run.policy.gradient_checkpointing else "with"
    print(
        f"activations {word} gradient_checkpointing: {other.cost.saved / GB:.3f} GB, total "
        f"{other.estimate.total / GB:.3f} GB"
    )
    if run.reference == "cache":
        size = "unknown" if found.workload.scored is None else f"{4 * found.workload.scored / GB:.3f} GB"
        print(f"reference cache on disk: {size}")
    _print_duration(found, trainer, question)
    return _verdict(found, sum(part.bytes for part in beside))


def _print_duration(found: Assessment, trainer: Mapping[str, Any], question: Question) -> None:
    run, rows = found.run, found.workload.rows
    steps = None if rows is None else steps_of(trainer, rows, run.data.step_size_for(rows))
    print(steps_line(found, steps))
    flops = None if steps is None else total_flops(found, steps)
    if flops is None:
        return
    dtype = torch.bfloat16 if run.precision.startswith("bf16") else run.policy.dtype
    if question.flops is not None:
        rate, origin = 1e12 * question.flops, "as given"
    else:
        rate = measured_rate("cuda" if torch.cuda.is_available() else "cpu", dtype)
        origin = "matrix products on this machine just now; a run reaches less"
    hours = flops / (rate * run.devices.count) / 3600
    print(f"time: {hours:.2g} hours for {flops / 1e15:.3g} PFLOP at {rate / 1e12:.3g} TFLOP/s a device ({origin})")


def _verdict(found: Assessment, overhead: float) -> bool:
    memory = found.run.devices.memory
    if memory is None:
        return True
    needed = found.estimate.total + overhead
    if needed <= memory:
        tight = "; that is tight, as allocators lose some" if needed > TIGHT * memory else ""
        print(f"It fits: {needed / GB:.2f} of {memory / GB:g} GB{tight}.")
        return True
    print(f"It does not fit: {needed / GB:.2f} GB are needed and there are {memory / GB:g}.")
    print(advice_list(advice(found), memory - overhead))
    return False
