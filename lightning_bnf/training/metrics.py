"""Metrics of a step or a split: sums and counts, reduced once over micro-batches and ranks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_bnf.losses.base import Examples
from lightning_bnf.losses.completions import Completions
from lightning_bnf.runtime.refusal import Refusal

PREFERENCE_METRICS = (
    "loss",
    *(
        f"{what}/{side}"
        for what in ("logps", "logps_mean", "logratios_mean", "rewards")
        for side in ("chosen", "rejected")
    ),
    "rewards/margins",
    "rewards/accuracies",
    "entropy",
)


class Means(Metric):
    """Means by name. A name that nothing was added to is absent from the result, not 0.

    All names are given at the start, so that ranks which saw different classes still reduce the same two tensors. Sums
    and counts are float64, whatever type the module that holds them is converted to.
    """

    sums: Tensor
    counts: Tensor
    full_state_update = False

    def __init__(self, names: Iterable[str]):
        super().__init__()
        self.names = {name: i for i, name in enumerate(names)}
        self.add_state("sums", torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Self:
        # torchmetrics knows a change of type by its function's name, and not that of `Module.to`, by which Lightning
        # converts: in bfloat16 a sum of ones would stop at 256.
        return super()._apply(lambda state: state.to(fn(state).device), exclude_state)  # type: ignore[return-value]

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Add values, any shape, by name. Raises `Refusal` for a name that was not given at the start."""
        for name, value in values.items():
            if name not in self.names:
                raise Refusal(f"metric must be one of {', '.join(self.names)}, which were declared, got {name!r}")
            self.add(name, value.detach().double().sum(), value.numel())

    def add(self, name: str, total: Tensor | float, count: float) -> None:
        """Add `count` values that sum to `total`; either may be given apart from the other."""
        self.sums[self.names[name]] += total
        self.counts[self.names[name]] += count

    def compute(self) -> dict[str, float]:
        """The means so far, by name."""
        sums, counts = self.sums.tolist(), self.counts.tolist()
        return {name: sums[i] / counts[i] for name, i in self.names.items() if counts[i]}


@torch.no_grad()
def preference_metrics(
    policy: Completions, reference: Completions | None, examples: Examples, implicit_reward_scale: float
) -> dict[str, Tensor]:
    """What is worth watching under any loss, by name; values per completion or per pair.

    `logratios_mean/*` are log-ratios of policy to reference a token (nats), `rewards/*` are
    `implicit_reward_scale` times their sums: both are absent without a reference. `entropy` is per token.
    """
    sums, means = policy.sum(), policy.mean()  # (B,)
    by_name = {"logps": sums, "logps_mean": means}
    if reference is not None:
        by_name["logratios_mean"] = means - reference.mean()
        by_name["rewards"] = implicit_reward_scale * (sums - reference.sum())
    metrics = {} if policy.entropy is None else {"entropy": policy.entropy}
    preferred, dispreferred = examples.sides()
    for name, values in by_name.items():
        metrics[f"{name}/chosen"] = values[preferred]
        metrics[f"{name}/rejected"] = values[dispreferred]
    if reference is not None and examples.pair is not None:
        margin = examples.chosen_minus_rejected(by_name["rewards"])  # (P,)
        metrics["rewards/margins"] = margin
        metrics["rewards/accuracies"] = (margin > 0).double()
    return metrics
