"""What is asked of `plan`, and the devices that it is asked of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lightning_bnf.costs.plan.estimate import Devices
from lightning_bnf.costs.plan.gpus import Gpu, gpu_named
from lightning_bnf.costs.plan.report import GB
from lightning_bnf.runtime.arguments import PositiveFloat, PositiveInt, checked
from lightning_bnf.runtime.memory import Unmeasurable, available_bytes, taken_bytes
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.strategies import Parallelism, parallelism_of


@checked
@dataclass(frozen=True)
class Question:
    """What is asked of `plan` beside a config.

    Args:
        gpu: A GPU by name, such as rtx4090, l40s, a100-80 or h100: its memory, and its peak rate, of which a share is
            assumed; null plans for this machine unless gpus or gpu_memory say otherwise.
        gpus: Number of GPUs; null takes one where a GPU is named, else the Trainer's devices.
        gpu_memory: Memory of each device in GB (10^9 bytes); null takes the named GPU's, or this machine's free memory.
        flops: Rate that each device reaches in training, in TFLOP/s; null assumes a share of the named GPU's peak rate,
            or of this machine's own.
        rows: Number of training rows; then the data are not read. Null counts them where they are local files.
        tokens_per_row: Mean tokens of a row with all its completions; the same.
        sweep: Whether to print memory and time of models from 1B to 70B on the named GPU instead, by full fine-tuning,
            LoRA and QLoRA.
    """

    gpu: str | None = None
    gpus: PositiveInt | None = None
    gpu_memory: PositiveFloat | None = None
    flops: PositiveFloat | None = None
    rows: PositiveInt | None = None
    tokens_per_row: PositiveFloat | None = None
    sweep: bool = False

    def __post_init__(self) -> None:
        if self.gpu is not None:
            gpu_named(self.gpu)

    @property
    def named(self) -> Gpu | None:
        """The GPU that is named."""
        return None if self.gpu is None else gpu_named(self.gpu)

    @property
    def elsewhere(self) -> bool:
        """Whether another machine than this one is meant."""
        return any(said is not None for said in (self.gpu, self.gpus, self.gpu_memory))


def devices_of(trainer: Mapping[str, Any], question: Question) -> Devices:
    """Where the run is to be: what `question` says, else the Trainer's settings."""
    accelerator = trainer.get("accelerator", "auto")
    cuda = accelerator in ("cuda", "gpu") or (
        accelerator == "auto" and (question.elsewhere or torch.cuda.is_available())
    )
    given = trainer.get("devices", "auto")
    count = question.gpus or (
        1 if question.gpu and given == "auto" else _devices(given) * int(trainer.get("num_nodes") or 1)
    )
    kind = "cuda" if cuda or question.gpus or question.gpu else "cpu"
    return Devices(kind, count, _spread(trainer.get("strategy"), count), _memory(question, kind))


def _memory(question: Question, kind: str) -> float | None:
    """Bytes of each device: as given, of the named GPU, or of this machine where it is what is planned for."""
    if question.gpu_memory is not None:
        return question.gpu_memory * GB
    if question.named is not None:
        return question.named.memory * GB
    if question.elsewhere or (kind == "cuda" and not torch.cuda.is_available()):
        return None
    try:
        return float(available_bytes(torch.device(kind)) + taken_bytes(torch.device(kind)))
    except Unmeasurable:
        return None


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
