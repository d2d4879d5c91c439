"""The optimizer and its schedule."""

import importlib.util
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from lightning_bnf.runtime.refusal import Refusal


@dataclass(frozen=True)
class Optimization:
    """AdamW with warm-up, a schedule and clipping of the whole gradient.

    Args:
        learning_rate: Peak learning rate (> 0).
        schedule: How the learning rate falls after the warm-up, to 0 at the last step; `constant` stays.
        warmup_ratio: Share of all steps in which the learning rate rises linearly (0 to below 1).
        weight_decay: Decoupled weight decay of matrices (>= 0); vectors (norms, biases) are not decayed.
        betas: AdamW's averaging coefficients.
        max_grad_norm: Norm that the gradient of a whole step is clipped to (> 0); null never clips.
        paged_8bit: Whether AdamW keeps its moments in 8 bits, in memory that moves to the host when the GPU's is full
            (bitsandbytes, CUDA only): a quarter of the memory.
    """

    learning_rate: float = 1e-6
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float | None = 1.0
    paged_8bit: bool = False

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise Refusal(f"learning_rate {self.learning_rate}: accepted are numbers > 0")
        if not 0 <= self.warmup_ratio < 1:
            raise Refusal(f"warmup_ratio {self.warmup_ratio}: accepted are numbers from 0 to below 1")
        if not self.weight_decay >= 0:
            raise Refusal(f"weight_decay {self.weight_decay}: accepted are numbers >= 0")
        if self.schedule not in ("cosine", "linear", "constant"):
            raise Refusal(f"schedule {self.schedule!r}: accepted are 'cosine', 'linear' and 'constant'")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise Refusal(f"betas {self.betas}: accepted are two numbers from 0 to below 1")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise Refusal(f"max_grad_norm {self.max_grad_norm}: accepted are numbers > 0, or null")

    def check_device(self, device: str) -> None:
        """Raises ValueError where a setting does not go with the type of device that the run is on."""
        if self.paged_8bit and device != "cuda":
            raise Refusal(f"paged_8bit true on {device}: accepted is false there; only CUDA devices page memory")
        if self.paged_8bit and importlib.util.find_spec("bitsandbytes") is None:
            raise Refusal("paged_8bit true: accepted with bitsandbytes, pip install 'lightning_bnf[qlora]'")

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW over the trainable parameters, all on one type of device."""
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        filled = [group for group in groups if group["params"]]
        if self.paged_8bit:
            self.check_device(parameters[0].device.type)
            from bitsandbytes.optim import PagedAdamW8bit  # an optional dependency, and slow to import

            return PagedAdamW8bit(filled, self.learning_rate, self.betas)
        return torch.optim.AdamW(filled, self.learning_rate, self.betas, fused=True)  # one pass over the memory

    def factor(self, step: int, steps: int) -> float:
        """What the peak learning rate is multiplied by at `step` (from 0) of `steps`."""
        warmup = math.ceil(self.warmup_ratio * steps)
        if step < warmup:
            return (step + 1) / warmup  # not from 0: a first step of size 0 would be wasted
        progress = (step - warmup) / max(steps - warmup, 1)
        if self.schedule == "constant":
            return 1.0
        return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1 - progress)
