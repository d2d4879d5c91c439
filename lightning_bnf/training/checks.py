"""What a run is checked for while it trains: its start, tensors that get no gradient, numbers that are not finite."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.contract import ScoredData
from lightning_bnf.policies.base import Policy, PolicyError, evaluating
from lightning_bnf.policies.reference.providers import Reference
from lightning_bnf.policies.routing import router_of
from lightning_bnf.runtime.distributed import gather, gather_objects, local
from lightning_bnf.training.optimizers import trained_part

MOVEMENT_STEPS = 10
MOVEMENT_SAMPLE = 2**20  # numbers that are looked at
GRADIENT_CHECK_STEPS = 2  # LoRA's A gets no gradient in the first step, while B is still zero

_SHOWN = 20  # rows


class NonFiniteError(RuntimeError):
    """A loss, gradient or weight that is not a finite number; names the step, and the rows or tensors."""


class GradientCheck:
    """Whether gradients arrive: most trainable tensors must have got one other than 0 in the first steps that had any.

    Few that got none are named and no error: experts that no token went to, biases that only choose experts, parts for
    images. Nor is a step without any gradient: a loss may be flat where it begins, as hinges are.
    """

    def __init__(self, trainable: Mapping[str, Tensor]):
        self._without = set(trainable)
        self._steps = self._flat = 0

    def __call__(self, trainable: Mapping[str, Tensor]) -> None:
        """After a step's backward passes, on all ranks. Raises `PolicyError`."""
        if not self._without or self._steps >= GRADIENT_CHECK_STEPS:
            return
        mine = [name for name, p in trainable.items() if p.grad is not None and local(p.grad).any()]
        found = set().union(*gather_objects(mine))  # a rank may hold a part that is all 0
        if not found:
            self._flat += 1
            if self._flat == GRADIENT_CHECK_STEPS:
                rank_zero_warn(f"the gradient was 0 in {self._flat} steps: while the loss is flat, nothing is trained")
            return
        self._without -= found
        self._steps += 1
        if self._steps < GRADIENT_CHECK_STEPS or not self._without:
            return
        names = sorted(self._without)
        told = (
            f"{len(names)} of {len(trainable)} trainable tensors got no gradient in {GRADIENT_CHECK_STEPS} steps: "
            f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        )
        if 2 * len(names) > len(trainable):
            raise PolicyError(f"{told}. Most of what is to be trained never would be")
        rank_zero_warn(f"{told}. They stay as they are for as long as that is so")


class MovementCheck:
    """Whether weights move: of the trained numbers that got a gradient most must be others after ten steps.

    A number moves where its type can hold the change, which a learning rate of 1e-6 is too small for in bfloat16: then
    a run goes to its end, and next to nothing is trained. What is looked at is some of all numbers, evenly apart, of
    the tensors that the optimizer changes, which may be wider copies of the weights.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        """Watches the optimizer's first steps. Every rank has to make one."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self._stride = -(-sum(local(weight).numel() for weight in weights) // MOVEMENT_SAMPLE)
        self._begun: list[tuple[Tensor, Tensor, Tensor]] = []  # weight, its numbers at first, which got a gradient
        self._steps = 0
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def _some(self, tensor: Tensor) -> Tensor:
        return local(tensor.detach()).flatten()[:: self._stride]

    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        if not self._begun:
            for weight in weights:
                some = self._some(trained_part(optimizer, weight))
                self._begun.append((weight, some.clone(), torch.zeros_like(some, dtype=torch.bool)))
        for weight, __, reached in self._begun:
            if weight.grad is not None:
                reached.logical_or_(self._some(weight.grad) != 0)

    def _after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not any(group["lr"] for group in optimizer.param_groups):  # torch makes such a step to fill the state
            self._begun.clear()
            return
        self._steps += 1
        if self._steps < MOVEMENT_STEPS:
            return
        moved = total = 0
        for weight, first, reached in self._begun:
            changed = (self._some(trained_part(optimizer, weight)) != first) & reached
            moved, total = moved + int(changed.sum()), total + int(reached.sum())
        for handle in self._handles:
            handle.remove()
        self._begun.clear()
        ranks = gather_objects((moved, total))
        moved, total = sum(one for one, _ in ranks), sum(one for _, one in ranks)
        if not total:
            return
        told = f"{moved / total:.0%} of the trained numbers have moved in {MOVEMENT_STEPS} steps"
        if 2 * moved < total:
            rank_zero_warn(f"{told}: the others are of a type that cannot hold so small a change; set dtype float32")
        else:
            rank_zero_info(told)


@torch.no_grad()
def check_start(policy: Policy, reference: Reference | None, batch: MicroBatch, tolerance: float) -> None:
    """Before step 1: the head gives the model's own log-probs, and policy and reference agree to `tolerance` (nats a
    token, else a warning), where the reference is the start and no fit has trained the policy. The batch may be empty
    on some ranks, which all take part nevertheless."""
    with evaluating(policy):  # two passes that are compared must not draw dropout, of adapters, anew
        policy.check_head(batch)
    _tell_of_routers(policy)
    if reference is None or not policy.reference_is_start or policy.trained:
        return
    with evaluating(policy):
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


def _tell_of_routers(policy: Policy) -> None:
    """Whether a mixture of experts is trained with its routers' load-balancing loss."""
    if policy.router is not None:
        rank_zero_info(f"Beside the loss, {policy.router.weight:g} times the routers' load-balancing loss is trained.")
        return
    router = router_of(policy.causal_lm, policy.body)
    if router is None:
        return
    told = (
        f"{policy.source!r} is a mixture of experts with a load-balancing loss of its routers (router_aux_loss_coef "
        f"{router.weight:g}): it is trained without, unless model.router_loss is true"
    )
    asked = getattr(policy.causal_lm.config.get_text_config(), "output_router_logits", False)
    (rank_zero_warn if asked else rank_zero_info)(told)  # by its config the model itself would add it to its loss


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


def stop_not_finite(
    step: int, loss: float, norm: float, summands: Sequence[tuple[MicroBatch, bool]], data: ScoredData | None
) -> NoReturn:
    """Raises `NonFiniteError` with the rows of all ranks: the step's loss or its gradient's norm is not finite.

    summands: the step's micro-batches on this rank, each with whether its own values were finite; data: who knows where
    a row stands, in which file and line
    """
    own = {row for batch, finite in summands if not finite for row in batch.row_ids}
    ids = set().union(*gather_objects(own))
    rows = data.places(ids) if data is not None and ids else sorted(ids)
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    raise NonFiniteError(
        f"step {step}: the loss is {loss} and the gradient's norm {norm}, so the run stops before the weights change; "
        f"rows of the micro-batches concerned: {', '.join(rows[:_SHOWN]) or 'none by their loss'}{more}"
    )
