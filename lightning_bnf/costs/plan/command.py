"""The verb `plan`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from lightning_bnf.costs.plan.advice import advice
from lightning_bnf.costs.plan.duration import Rate, assumed_rate, duration, named_rate, steps_of
from lightning_bnf.costs.plan.overhead import fragmentation_of, overhead_of
from lightning_bnf.costs.plan.question import Question, devices_of
from lightning_bnf.costs.plan.report import GB, Verdict, advice_list, disk_line, heading, memory_table, steps_line
from lightning_bnf.costs.plan.run import Assessment, Run, assess
from lightning_bnf.costs.plan.workload import local_rows
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.budget import MOST_TOKENS
from lightning_bnf.training.support import Combination

TIGHT = 0.9  # of the memory
SMALLEST_BUDGET = 512


def run_of(module: PreferenceModule, data: PreferenceData, trainer: Mapping[str, Any], question: Question) -> Run:
    """The run that a fit of these would be."""
    devices = devices_of(trainer, question)
    precision = str(trainer.get("precision") or "32-true")
    policy = module.policy
    dtype, kind = str(policy.dtype).removeprefix("torch."), type(policy)
    refusal = Combination(
        kind, devices.parallelism, module.reference_kind, precision, devices.kind, policy.attention, dtype
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
    """Print what a run takes, the answer first; returns whether it fits, or True where no memory is known."""
    process = overhead_of(devices_of(trainer, question).kind)  # before there is anything else
    run = run_of(module, data, trainer, question)
    auto = data.max_tokens == "auto"
    found = fitting(run, process.bytes) if auto and run.devices.memory else assess(run)
    beside = [process, fragmentation_of(found)]
    overhead = sum(part.bytes for part in beside)
    rows = found.workload.rows
    steps = None if rows is None else steps_of(trainer, rows, data.step_size_for(rows))
    rate = rate_of(found.run, question)
    lasts = None if steps is None else duration(found, steps, rate)
    needed = found.estimate.total + overhead
    seen = None if rows is None or steps is None else min(rows, steps * data.step_size_for(rows))
    verdict = Verdict(needed, found.run.devices.memory, lasts, seen, rate, where(question))
    print(verdict.line())
    if verdict.fits and needed > TIGHT * (verdict.memory or needed):
        print("that is tight, as allocators lose some")
    print(f"\n{heading(found)}")
    if auto:
        print(f"data.max_tokens auto: {found.run.max_tokens}, {_chosen(found.run)}; --data.max_tokens sets another")
    print("\nGB of each device:")
    print(memory_table(found.estimate, beside))
    if run.reference == "cache":
        size = "unknown" if found.workload.scored is None else f"{4 * found.workload.scored / GB:.3f} GB"
        print(f"reference cache on disk: {size}")
    print(disk_line(found))
    print(steps_line(found, steps))
    print(verdict.time())
    if not verdict.fits:
        assert verdict.memory is not None
        print(advice_list(advice(found), verdict.memory - overhead))
    return verdict.fits


def _chosen(run: Run) -> str:
    if run.devices.memory is None:
        return "the most it chooses; it takes less where less is free"
    most = MOST_TOKENS[run.devices.kind]
    return "the most that makes anything faster" if run.max_tokens == most else "the largest power of two that fits"


def fitting(run: Run, process: float) -> Assessment:
    """The run with the largest budget of a micro-batch, a power of two, with which it takes no more than 9 tenths of
    the memory; the smallest where none does. `process`: bytes beside tensors."""
    budgets = [SMALLEST_BUDGET]
    while budgets[-1] < run.max_tokens:
        budgets.append(2 * budgets[-1])
    tried: dict[int, Assessment] = {}
    limit = TIGHT * (run.devices.memory or 0)

    def needed(place: int) -> float:
        tried[place] = found = assess(replace(run, max_tokens=budgets[place]))
        bar.update()
        return found.estimate.total + process + fragmentation_of(found).bytes

    with Progress(len(budgets).bit_length(), "Trying budgets of a micro-batch", "budget", delay=2) as bar:
        low, high = 0, len(budgets) - 1
        most = needed(high)
        if most <= limit:
            return tried[high]
        least = needed(low)
        while high - low > 1 and least <= limit:  # `low` fits, `high` does not, and bytes grow nearly evenly between
            line = (limit - least) / (most - least) * (budgets[high] - budgets[low]) + budgets[low]
            place = max([low + 1, *(place for place in range(low + 1, high) if budgets[place] <= line)])
            found = needed(place)
            if found <= limit:
                low, least = place, found
            else:
                high, most = place, found
        bar.skip(bar.total - bar.done)
    return tried[low]


def rate_of(run: Run, question: Question) -> Rate | None:
    """What each device reaches; None for GPUs that are not named and not here, which this machine tells nothing of."""
    if question.flops is not None:
        return Rate(1e12 * question.flops, f"{question.flops:g} TFLOP/s a device, as given")
    if question.named is not None:
        return named_rate(question.named)
    if question.elsewhere or (run.devices.kind == "cuda" and not torch.cuda.is_available()):
        return None
    dtype = torch.bfloat16 if run.precision.startswith("bf16") else run.policy.dtype
    return assumed_rate(torch.device(run.devices.kind), dtype)


def where(question: Question) -> str:
    """The machine that is planned for, in words."""
    if question.named is not None:
        return question.named.name
    return "" if question.elsewhere else "this machine"
