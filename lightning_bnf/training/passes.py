"""Passes before others: over a whole step before its first backward pass, of what losses need of all its tokens, and
over those steps of a run whose reference is stored before the first."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer

from lightning_bnf.batch import MicroBatch
from lightning_bnf.losses.base import Examples, StepLogps
from lightning_bnf.policies.base import Policy, PolicyError, evaluating
from lightning_bnf.policies.reference.providers import Reference
from lightning_bnf.policies.routing import Router, Routing, over_ranks, router_of, total
from lightning_bnf.runtime.distributed import gather, several
from lightning_bnf.runtime.refusal import Refusal


def scored_steps(trainer: Trainer) -> dict[str, int | None]:
    """Of which steps of each split a fit asks its reference, as a first so many, all for None: a run that ends before
    its epoch does, or that does not validate, waits for no log-probs that it does not use. One of no steps is there to
    store those of all."""
    steps = trainer.estimated_stepping_batches
    asked: dict[str, int | None] = {"train": int(steps) if 0 < steps < math.inf else None}
    if trainer.limit_val_batches:
        asked["validation"] = first_steps(trainer.limit_val_batches)
    return asked


def first_steps(limit: int | float) -> int | None:
    """Of a Trainer's limit of batches the number, None where it is a share of all."""
    return limit if isinstance(limit, int) else None


class PassOutput(NamedTuple):
    """The log-probs of a pass over a step, and where among them those of this rank begin."""

    logps: StepLogps
    first: int


def logps_of_step(
    policy: Policy, reference: Reference | None, batches: Sequence[MicroBatch], device: torch.device
) -> PassOutput:
    """Summed log-probs of the micro-batches' completions on all ranks, without gradients and dropout."""
    found, of_reference = [torch.zeros(0, device=device)], [torch.zeros(0, device=device)]
    label = [torch.zeros(0, dtype=torch.long, device=device)]
    pairs, seen = [torch.zeros(0, 2, dtype=torch.long, device=device)], 0
    for batch in batches:
        with evaluating(policy):
            found.append(batch.completions(policy(batch).token_logps).sum())
        if reference is not None:
            of_reference.append(batch.completions(reference(batch)).sum())
        if batch.examples.pair is not None:
            pairs.append(batch.examples.pair + seen)
        label.append(batch.examples.label)
        seen += len(batch.length)
    gathered = gather(torch.cat(found))
    examples = Examples(gather(torch.cat(label)).values, gather(torch.cat(pairs) + gathered.first).values)
    held = None if reference is None else gather(torch.cat(of_reference)).values
    return PassOutput(StepLogps(gathered.values, held, examples), gathered.first)


def routing_of_step(policy: Policy, batches: Sequence[MicroBatch]) -> Routing | None:
    """What the routers choose for the step's tokens on all ranks, by a forward pass without gradients, dropout and
    head; None where a micro-batch is the whole step, whose own pass tells it."""
    if len(batches) == 1 and not several():
        return None
    each = []
    with evaluating(policy):
        for batch in batches:
            routing = policy(replace(batch, position=batch.position[:0], target=batch.target[:0])).routing
            assert routing is not None
            each.append(routing)
    return over_ranks(total(each))


def trained_router(policy: Policy) -> Router:
    """The loaded policy's routers, whose load-balancing loss is to be trained. Raises `Refusal` where it has none."""
    if policy.compiled:
        raise PolicyError("compiled must be false with router_loss, which reads what is chosen inside layers, got true")
    router = router_of(policy.causal_lm, policy.body)
    if router is None:
        raise Refusal(
            f"router_loss must be false with source {policy.source!r}, a model without Switch Transformer's "
            "load-balancing loss of its routers, got true"
        )
    if not router.weight:
        raise Refusal(
            f"router_loss must be false with source {policy.source!r}, whose config weights it by 0 "
            "(router_aux_loss_coef), got true"
        )
    return router
