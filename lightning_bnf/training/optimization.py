"""The optimizer, which is any of torch's form, and its schedule."""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from lightning_bnf.policies.base import Policy
from lightning_bnf.runtime.arguments import AboveZeroToOne, ClosedUnitInterval, PositiveFloat, ZeroToBelowOne, checked
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.checks import MovementCheck
from lightning_bnf.training.optimizers import ELEMENTWISE, MasterWeights, is_half
from lightning_bnf.training.strategies import Parallelism

OptimizerFactory = Callable[[Iterable, float], torch.optim.Optimizer]
"""An optimizer's class with all its arguments but the parameters and the learning rate."""


@checked
@dataclass(frozen=True)
class Optimization:
    """Learning rate, warm-up, schedule, and clipping of the whole gradient, for any optimizer.

    Args:
        learning_rate: Peak learning rate (above 0, at most 1); null takes the one that the loss declares for all
            weights or for adapters, whichever are trained.
        schedule: How the learning rate falls after the warm-up, to 0 at the last step; `constant` stays.
        warmup_ratio: Share of all steps in which the learning rate rises linearly (0 to below 1).
        max_grad_norm: Norm that the gradient of a whole step is clipped to (> 0); null never clips.
        weight_decay: Decoupled weight decay (0 to 1) of the AdamW that trains where `optimizer` is null; null is 0. It
            is off for norms, biases and adapters' magnitudes (all with fewer than two dimensions), with any optimizer.
        betas: That AdamW's averaging coefficients (0 to below 1); null is (0.9, 0.999).
        paged_8bit: Always false; an optimizer of its own, `configs/optimizer/paged_adamw_8bit.yaml`, does that.
    """

    learning_rate: AboveZeroToOne | None = None
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: ZeroToBelowOne = 0.1
    max_grad_norm: PositiveFloat | None = 1.0
    weight_decay: ClosedUnitInterval | None = None
    betas: tuple[ZeroToBelowOne, ZeroToBelowOne] | None = None
    paged_8bit: bool = False

    def __post_init__(self) -> None:
        if self.paged_8bit:
            raise Refusal(
                "paged_8bit must be false, got true; set model.optimizer to configs/optimizer/paged_adamw_8bit.yaml, "
                "which is {class_path: bitsandbytes.optim.PagedAdamW8bit, init_args: {weight_decay: 0.0}}"
            )

    def factor(self, step: int, steps: int) -> float:
        """What the peak learning rate is multiplied by at `step` (from 0) of `steps`."""
        warmup = math.ceil(self.warmup_ratio * steps)
        if step < warmup:
            return (step + 1) / warmup  # not from 0: a first step of size 0 would be wasted
        progress = (step - warmup) / max(steps - warmup, 1)
        if self.schedule == "constant":
            return 1.0
        return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1 - progress)


def parameter_groups(policy: Policy) -> list[dict[str, Any]]:
    """The policy's trainable tensors in up to three groups, for any optimizer: the matrices of hidden layers
    (`hidden`), embeddings with the head, and vectors, which never decay."""
    inputs_and_head = [module for module in policy.modules() if isinstance(module, nn.Embedding)]
    inputs_and_head.append(policy.causal_lm.get_output_embeddings())
    outer = {id(parameter) for module in inputs_and_head for parameter in module.parameters()}
    trained = list(policy.trainable().values())
    hidden = [p for p in trained if p.ndim == 2 and id(p) not in outer]
    vectors = [p for p in trained if p.ndim < 2]
    taken = {id(parameter) for parameter in [*hidden, *vectors]}
    groups = [
        {"params": hidden, "hidden": True},
        {"params": [p for p in trained if id(p) not in taken], "hidden": False},
        {"params": vectors, "hidden": False, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    groups: Iterable[dict[str, Any]], optimization: Optimization, factory: OptimizerFactory | None = None
) -> torch.optim.Optimizer:
    """The optimizer of `parameter_groups`: what `factory` makes, else torch's AdamW in one pass over the memory; of
    weights of 16 bits on float32 copies of them."""
    rate = optimization.learning_rate
    if rate is None:
        raise RuntimeError("the optimizer is built of a learning rate; with_learning_rate gives the default")

    def build(groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        if factory is not None:
            return factory(groups, rate)
        betas, decay = optimization.betas or (0.9, 0.999), optimization.weight_decay or 0.0
        return torch.optim.AdamW(groups, rate, betas, weight_decay=decay, fused=True)

    chosen = list(groups)
    if any(is_half(parameter) for group in chosen for parameter in group["params"]):
        return MasterWeights(chosen, build)
    return build(chosen)


def scheduled(
    policy: Policy, optimization: Optimization, factory: OptimizerFactory | None, steps: float
) -> dict[str, Any]:
    """The loaded policy's optimizer with its schedule over so many steps, as Lightning takes them.

    Raises `Refusal` for a run without a last step, which the schedule falls to.
    """
    if not math.isfinite(steps):
        raise Refusal("trainer.max_steps must be a number where max_epochs is -1: the schedule falls to it, got -1")
    optimizer = build_optimizer(parameter_groups(policy), optimization, factory)
    MovementCheck(optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: optimization.factor(step, int(steps)))
    return {"optimizer": optimizer, "lr_scheduler": schedule}


def check_optimizer(
    optimization: Optimization, factory: OptimizerFactory | None, device: torch.device, parallelism: Parallelism
) -> None:
    """Try two steps of the optimizer on a matrix and a vector on the run's device, before anything is loaded.

    Raises `Refusal` where it cannot take them, or what it needs is said twice, or its state cannot be sharded.
    """
    if factory is None:
        return
    if not callable(factory):
        raise Refusal(
            "optimizer must be a class or function that makes one, such as torch.optim.AdamW (on the command line also "
            f"a name of configs/optimizer), got {factory!r}"
        )
    for name in ("weight_decay", "betas"):
        value = getattr(optimization, name)
        if value is not None:
            raise Refusal(f"optimization.{name} must be null beside an optimizer, whose init_args have it, got {value}")
    matrix, vector = (nn.Parameter(torch.zeros(shape, device=device)) for shape in ((64, 64), (64,)))
    groups = [{"params": [matrix], "hidden": True}, {"params": [vector], "hidden": False, "weight_decay": 0.0}]
    try:
        optimizer = build_optimizer(groups, optimization, factory)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns again when it trains
            for _ in range(2):
                for parameter in (matrix, vector):
                    parameter.grad = torch.ones_like(parameter)
                optimizer.step()
        if not all(p.isfinite().all() and p.any() for p in (matrix, vector)):
            raise Refusal("optimizer must be one that changes weights by finite numbers, got one whose steps do not")
    except Refusal:
        raise
    except Exception as error:  # whatever a class of somebody else's raises
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise Refusal(f"optimizer must be one that takes a step on {device.type}, got {reason}") from error
    if parallelism == "fsdp2" and type(optimizer) not in ELEMENTWISE:
        raise Refusal(
            f"strategy must be auto or ddp with the optimizer {type(optimizer).__name__}, which is not known to update "
            "parts of a tensor as it does the whole, as AdamW, Adam and SGD of torch do, got fsdp2"
        )
