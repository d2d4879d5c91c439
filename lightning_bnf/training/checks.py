"""What a run is checked for while it trains: its start, tensors that get no gradient, numbers that are not finite."""

from collections.abc import Mapping, Sequence
from typing import NoReturn

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_bnf.batch import MicroBatch
from lightning_bnf.policies.base import Policy, PolicyError
from lightning_bnf.policies.reference.providers import Reference
from lightning_bnf.runtime.distributed import gather, gather_objects, local

GRADIENT_CHECK_STEPS = 2  # LoRA's A gets no gradient in the first step, while B is still zero


class NonFiniteError(RuntimeError):
    """A loss, gradient or weight that is not a finite number; names the step, and the rows or tensors."""


class GradientCheck:
    """Every trainable tensor must have got a gradient other than 0 in the first steps; an error names it if not."""

    def __init__(self, trainable: Mapping[str, Tensor]):
        self._without = set(trainable)
        self._steps = 0

    def __call__(self, trainable: Mapping[str, Tensor]) -> None:
        """After a step's backward passes, on all ranks. Raises `PolicyError`."""
        if not self._without:
            return
        found = [name for name, p in trainable.items() if p.grad is not None and local(p.grad).any()]
        self._without.difference_update(*gather_objects(found))  # a rank may hold a part that is all 0
        self._steps += 1
        if self._steps >= GRADIENT_CHECK_STEPS and self._without:
            names = sorted(self._without)
            raise PolicyError(
                f"{len(names)} trainable tensors got no gradient in {GRADIENT_CHECK_STEPS} steps and would never "
                f"train: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
            )


@torch.no_grad()
def check_start(policy: Policy, reference: Reference | None, batch: MicroBatch, tolerance: float) -> None:
    """Before step 1: the head gives the model's own log-probs, and policy and reference agree to `tolerance` (nats a
    token, else a warning). The batch may be empty on some ranks, which all take part nevertheless."""
    policy.check_head(batch)
    if reference is None:
        return
    distances = gather((policy(batch).token_logps - reference(batch)).abs()).values
    if len(distances) == 0:
        return
    distance = distances.quantile(0.99).item()
    rank_zero_info(f"Before step 1, policy and reference differ by {distance:.2g} nats a token (99th percentile).")
    if distance > tolerance:
        rank_zero_warn(
            f"policy and reference differ by {distance:.3g} nats a token before step 1 (accepted: {tolerance:g}): "
            "the reference is not the starting policy, or tokenisation, dropout or dtype differ"
        )


def stop_not_finite_weights(step: int, trainable: Mapping[str, Tensor]) -> None:
    """Raises `NonFiniteError`, on all ranks, where a trained weight is not a finite number: such weights are neither
    saved nor exported, so that the last good ones stay."""
    mine = [name for name, parameter in trainable.items() if not local(parameter.detach()).isfinite().all()]
    names = sorted(set().union(*gather_objects(mine)))
    if names:
        raise NonFiniteError(
            f"step {step}: {len(names)} of {len(trainable)} trained tensors are no longer finite "
            f"({', '.join(names[:3])}{' ...' if len(names) > 3 else ''}), so nothing of them is saved; "
            "optimization.learning_rate must be lower"
        )


def stop_not_finite(step: int, loss: float, norm: float, summands: Sequence[tuple[MicroBatch, bool]]) -> NoReturn:
    """Raises `NonFiniteError` with the rows of all ranks: the step's loss or its gradient's norm is not finite.

    summands: the step's micro-batches on this rank, each with whether its own values were finite
    """
    own = {row for batch, finite in summands if not finite for row in batch.row_ids}
    rows = set().union(*gather_objects(own))
    raise NonFiniteError(
        f"step {step}: the loss is {loss} and the gradient's norm {norm}, so the run stops before the weights change; "
        f"rows of the micro-batches concerned: {', '.join(sorted(rows)) or 'none by their loss'}"
    )
