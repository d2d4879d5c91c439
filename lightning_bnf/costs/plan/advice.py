"""What would take less memory: changes of a run, each tried out."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lightning_bnf.costs.plan.estimate import estimate
from lightning_bnf.costs.plan.run import Assessment, Run, assess
from lightning_bnf.policies import LoRAPolicy, QLoRAPolicy
from lightning_bnf.policies.reference.build import check_reference
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.training.support import Combination

WORTH = 0.98  # of the total: a change that saves less is no advice


@dataclass(frozen=True)
class Advice:
    """What to change, the bytes of each device with it, and what to type for it."""

    what: str
    total: float
    flags: str = ""


class Change(NamedTuple):
    """Another run, what differs, and what to type for it."""

    what: str
    run: Run
    flags: str


def with_checkpointing(run: Run, on: bool) -> Run:
    """The run with gradient checkpointing on or off."""
    policy = copy.deepcopy(run.policy)
    policy.gradient_checkpointing = on
    return replace(run, policy=policy)


def advice(found: Assessment) -> list[Advice]:
    """What takes less than the run as it is, the most effective first; the last is all that does not change the result.

    Every change is computed as the run itself was; those that are refused, or save next to nothing, are left out.
    """
    run = found.run
    harmless, tried = list(_harmless(run)), []
    changes = [*harmless, *_other(run)]
    with Progress(len(changes), "Trying what takes less", "change", delay=2) as bar:
        for change in changes:
            tried.append(Advice(change.what, assess(change.run).estimate.total, change.flags))
            bar.update()
    tried += _more_devices(run)
    worth = sorted((one for one in tried if one.total < WORTH * found.estimate.total), key=lambda one: one.total)
    if len(harmless) > 1:
        together = with_checkpointing(run, True)
        together = replace(
            together, reference=_cached(run), max_tokens=min(change.run.max_tokens for change in harmless)
        )
        names = ", ".join(change.what.split(" (")[0] for change in harmless)
        flags = " ".join(change.flags for change in harmless)
        worth.append(Advice(f"together: {names}", assess(together).estimate.total, flags))
    return worth


def _cached(run: Run) -> str:
    return "cache" if run.reference == "copy" else run.reference


def _harmless(run: Run) -> Iterator[Change]:
    """Changes that leave the result as it is."""
    if not run.policy.gradient_checkpointing:
        yield Change(
            "model.policy gradient_checkpointing: true (a third more time)",
            with_checkpointing(run, True),
            "--model.policy.init_args.gradient_checkpointing true",
        )
    if run.reference == "copy":
        yield Change(
            "model.reference: cache (one more pass over the data)",
            replace(run, reference="cache"),
            "--model.reference cache",
        )
    if run.max_tokens > 512:
        less = max(run.max_tokens // 4, 512)
        yield Change(
            f"data.max_tokens: {less} (same result)", replace(run, max_tokens=less), f"--data.max_tokens {less}"
        )


def _other(run: Run) -> Iterator[Change]:
    """Changes that make another run of it."""
    policy = run.policy
    dtype: Any = str(policy.dtype).removeprefix("torch.")
    smaller: tuple[tuple[str, type[LoRAPolicy], Any], ...] = (
        ("lora", LoRAPolicy, dtype),
        ("qlora", QLoRAPolicy, "bfloat16"),
    )
    for name, kind, dtype in smaller:
        less = kind(
            policy.source,
            policy.revision,
            dtype=dtype,
            attention=policy.attention,
            gradient_checkpointing=policy.gradient_checkpointing,
        )
        reference = check_reference("auto", less, run.loss.needs_reference)
        other = replace(run, policy=less, reference="cache" if run.reference == "cache" else reference)
        if not _refusal(other):
            flags = f"--model.policy {name} --model.policy.init_args.source {policy.source}"
            yield Change(f"model.policy: {kind.__name__}, rank {less.config.r}", other, flags)


def _refusal(run: Run) -> str | None:
    devices = run.devices
    return Combination(type(run.policy), devices.parallelism, run.reference, run.precision, devices.kind).refusal()


def _more_devices(run: Run) -> list[Advice]:
    """The run sharded over more devices: the fewest on which it fits, else eight times as many."""
    sharded = replace(run, devices=replace(run.devices, count=2 * run.devices.count, parallelism="fsdp2"))
    if _refusal(sharded):
        return []
    cost, found = assess(sharded).cost, []
    for factor in (2, 4, 8):
        devices = replace(sharded.devices, count=factor * run.devices.count)
        flags = f"--trainer.devices {devices.count} --trainer.strategy fsdp2"
        found.append(Advice(f"{devices.count} devices, trainer.strategy: fsdp2", estimate(cost, devices).total, flags))
        if devices.memory is not None and found[-1].total <= devices.memory:
            break
    return found[-1:]
