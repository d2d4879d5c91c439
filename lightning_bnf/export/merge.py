"""Merging an adapter into its base, and what that changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightning_bnf.datamodules.steps.layout import PADDED
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.export.folders import MAX_SHARD_SIZE
from lightning_bnf.policies.adapters import with_adapter
from lightning_bnf.policies.base import Dtype, Policy, evaluating
from lightning_bnf.policies.full import FullPolicy
from lightning_bnf.policies.sources import load_model


def merge(
    policy: Policy, adapter: Path, folder: Path, dtype: torch.dtype, max_shard_size: str = MAX_SHARD_SIZE
) -> None:
    """Write the base with a saved adapter added to its weights, as a `save_pretrained` folder of weights in `dtype`.

    The base is loaded afresh: what 4-bit weights were trained beside is never what is merged into, as sums rounded to
    4 bits lose most of the adapter. Raises `SourceError` where the source itself holds quantized weights.
    """
    base = load_model(policy.source, dtype, policy.revision)
    merged = with_adapter(base, adapter).merge_and_unload(safe_merge=True)
    merged.save_pretrained(folder, max_shard_size=max_shard_size)
    policy.tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class Rescored:
    """How far apart the log-probs of the same tokens are before and after; `largest` and `mean` (absolute) in nats."""

    rows: int
    tokens: int
    largest: float
    mean: float

    def __str__(self) -> str:
        return (
            f"token log-probs of {self.tokens} tokens in {self.rows} rows differ by at most {self.largest:.3g} nats "
            f"({self.mean:.3g} on average) from those of the trained policy"
        )


def scores(policy: Policy, rows: Sequence[TokenizedRow]) -> Tensor:
    """Token log-probs (N,) of all completions of the rows, one row after the other, in nats on the CPU."""
    device = next(policy.causal_lm.parameters()).device
    with evaluating(policy):
        return torch.cat([policy(PADDED.batch([row], (1, -1)).to(device)).token_logps.cpu() for row in rows])


def change_of_base(policy: Policy, rows: Sequence[TokenizedRow], dtype: Dtype) -> Rescored:
    """How far the base that was trained beside (such as one in 4 bits) is from the source's weights in `dtype`."""
    device = next(policy.causal_lm.parameters()).device
    with policy.without_adapters():
        before = scores(policy, rows)
    fresh = FullPolicy(policy.source, policy.revision, dtype)
    fresh.load()
    return rescored(rows, before, scores(fresh.to(device), rows))


def rescored(rows: Sequence[TokenizedRow], before: Tensor, after: Tensor) -> Rescored:
    """Compare two scorings, (N,) each, of the same rows."""
    distance = (before.double() - after.double()).abs()
    return Rescored(len(rows), len(distance), distance.max().item(), distance.mean().item())
