"""The budget of a micro-batch, by dry steps that all ranks take together.

What ranks measure differs: of memory by what else lies on a device, of time by anything. Under FSDP2 every pass is one
of all ranks, so a rank that took another step than the others would wait for them for ever. So each measurement is told
to all before anything is decided by it, and what is decided is a pure function of the worst of them.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.layout import Layout
from lightning_bnf.datamodules.steps.plan import Budget, call_tokens_on, size_of
from lightning_bnf.datamodules.tokens.columns import Ragged, starts_of
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import as_rows
from lightning_bnf.policies.base import Policy
from lightning_bnf.runtime.distributed import gather_objects, is_sharded
from lightning_bnf.runtime.memory import available_bytes, peak_bytes, synchronize, taken_bytes

SHARE_OF_FREE = 0.8  # of free memory that a step may take: allocators need some, and other programs
MOST_TOKENS = {"cpu": 2048, "cuda": 32768}  # more make nothing faster
LEAST_CALL, MOST_CALL = 64, 8192  # tokens that a micro-batch may be said to cost: clocks are rough


class Dry(NamedTuple):
    """A dry step, by the worst of all ranks.

    bytes: beside the weights; infinite where memory ran out; seconds; tokens: of the micro-batch, padding included
    """

    bytes: float
    seconds: float
    tokens: int


@dataclass(frozen=True)
class DrySteps:
    """Takes dry steps on micro-batches of the longest rows, or of the shortest one, and tells all ranks."""

    policy: Policy
    rows: Sequence[TokenizedRow]
    layout: Layout
    labels: Sequence[int]
    token_loss: bool

    @property
    def device(self) -> torch.device:
        """Where the policy lies."""
        return next(self.policy.causal_lm.parameters()).device

    def lengths(self) -> Ragged:
        """Of each row the tokens of its sequences in the layout."""
        return self.layout.lengths_of(self.rows, self.labels)

    def on(self, chosen: Sequence[int]) -> Dry:
        """A dry step on some rows. Memory that runs out is a measurement too, but under FSDP2: there the other ranks
        are inside the same pass, and wait. Raises `DataError` for it there."""
        arrays, device = as_rows(self.rows), self.device
        batch = self.layout.batch([arrays.arrays(i) for i in chosen], self.labels).to(device)
        synchronize(device)
        before, begun = taken_bytes(device), time.perf_counter()
        found: float | None = None
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                found = peak_bytes(partial(self.policy.dry_step, batch, self.token_loss), device) - before
        except torch.OutOfMemoryError as error:
            if is_sharded(self.policy):
                raise DataError(
                    "data.max_tokens must be a number with fsdp2 on these devices, got 'auto', with which memory ran "
                    f"out in a dry step of {batch.inputs['input_ids'].numel()} tokens"
                ) from error
        if found is None:  # outside of the handler, as the error holds what was made until then
            self.policy.drop_gradients()
            if device.type == "cuda":
                torch.cuda.empty_cache()
            found = math.inf
        synchronize(device)
        mine = found, time.perf_counter() - begun
        bytes, seconds = (max(each) for each in zip(*gather_objects(mine)))
        return Dry(bytes, seconds, batch.inputs["input_ids"].numel())


def choose_budget(steps: DrySteps, step_rows: int, optimizer_bytes: int) -> Budget:
    """The largest budget of a micro-batch (tokens) that fits into the free memory of every rank, and on a GPU what a
    micro-batch costs beside its tokens.

    No more than the `step_rows` longest rows take, as no step asks for more. `optimizer_bytes`: of its state, which
    comes with the first step. Raises `DataError` where even the longest row does not fit, and `memory.Unmeasurable`
    where memory cannot be measured.
    """
    lengths, layout, device = steps.lengths(), steps.layout, steps.device
    packed, common = layout.packed, layout.common
    longest, sums = int(lengths.sizes(packed).max()) + common, lengths.sums()
    largest = np.argsort(-sums, kind="stable")[:step_rows].tolist()
    most_of_a_step = size_of([length for row in largest for length in lengths[row]], packed, common)
    step = -(-most_of_a_step // 64) * 64  # as budgets are rounded down
    limit = min(gather_objects(int(SHARE_OF_FREE * available_bytes(device)) - optimizer_bytes))
    most = min(MOST_TOKENS.get(device.type, 16384), step)

    def peak(budget: int) -> float:
        found = steps.on(_largest(lengths, budget, packed, common)).bytes
        if not common:
            return found
        return max(found, steps.on(_most_rows(lengths, budget, common, step_rows)).bytes)

    budget, taken = search(peak, max(longest, 256), most, limit, careful=is_sharded(steps.policy))
    call_tokens = call_tokens_on(device.type)
    if device.type == "cuda":  # on a CPU padding is what costs
        shortest = int(np.where(lengths.counts > 0, sums, sums.max() + 1).argmin())
        few, many = (
            min((steps.on(chosen) for _ in range(2)), key=lambda dry: dry.seconds)
            for chosen in ([shortest], _largest(lengths, budget, packed, common))
        )
        call_tokens = fixed_cost(few, many, call_tokens)
    rank_zero_info(
        f"max_tokens auto: {budget} tokens a micro-batch; a dry step on the longest took {taken / 1e9:.2f} GB beside"
        f" the weights, of {limit / 1e9:.1f} GB that are free."
    )
    return Budget(budget, call_tokens)


def search(
    peak: Callable[[int], float], small: int, most: int, limit: float, careful: bool = False
) -> tuple[int, float]:
    """The largest budget whose dry step takes at most `limit` bytes, and what it takes.

    Two dry steps give what a token takes; a third one, at the budget, confirms it. `careful`: where memory may not run
    out, the second one is taken only where twice the first would fit. Raises `DataError` where `small` does not fit.
    """
    first = peak(small)
    if first > limit:
        took = "more than there is" if math.isinf(first) else f"{first / 1e9:.1f} GB"
        raise DataError(
            f"max_tokens 'auto': the longest row must be one that fits into the {limit / 1e9:.1f} GB that are free "
            f"beside the optimizer, got {small} tokens that take {took}; a smaller max_length,"
            " gradient_checkpointing or LoRA help"
        )
    if careful and 2 * first > limit:
        return small, first
    a_token = max((peak(2 * small) - first) / small, 1.0)
    budget = max(int(min(small + (limit - first) / a_token, most)) // 64 * 64, small)
    found = first
    while budget > small and (found := peak(budget)) > limit:
        budget = max(budget * 3 // 4, small)
    return budget, first if budget == small else found


def fixed_cost(few: Dry, many: Dry, usual: int) -> int:
    """What a micro-batch costs beside its tokens, in tokens: time = a + b tokens gives a / b, to a power of two, so
    that runs on like machines are cut alike. `usual` where the two tell nothing."""
    more = many.tokens - few.tokens
    if more < few.tokens or many.seconds <= few.seconds:
        return usual
    each = (many.seconds - few.seconds) / more
    fixed = few.seconds / each - few.tokens
    return min(max(2 ** round(math.log2(max(fixed, 1.0))), LEAST_CALL), MOST_CALL)


def _largest(tokens: Ragged, budget: int, packed: bool, common: int = 0) -> list[int]:
    """The micro-batch that takes most of all within a budget: the longest rows, as many as it holds, one at least."""
    chosen: list[int] = []
    lengths: list[int] = []
    falling = np.argsort(-tokens.largest(), kind="stable")
    for row in map(int, falling[tokens.counts[falling] > 0]):
        lengths += tokens[row]
        if chosen and (size_of(lengths, packed, common) > budget or common * len(lengths) > budget):
            break
        chosen.append(row)
    return chosen


def _most_rows(tokens: Ragged, budget: int, common: int, step_rows: int) -> list[int]:
    """The micro-batch with most keys beside its rows' own: as many rows as it may hold, the longest of which so many
    fit."""
    sums = tokens.sums()
    rising = np.argsort(sums, kind="stable")
    rising = rising[tokens.counts[rising] > 0]
    ends = starts_of(sums[rising])
    room, most = budget - common, min(len(rising), step_rows, max(budget // common, 1))
    count = min(most, max(int(np.searchsorted(ends, room, side="right")) - 1, 1))
    first = max(int(np.searchsorted(ends[count:] - ends[: len(ends) - count], room, side="right")) - 1, 0)
    return rising[first : first + count].tolist()
