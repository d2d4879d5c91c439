"""A run as it was configured, and what it takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lightning_bnf.costs.plan.estimate import Devices, Estimate, estimate
from lightning_bnf.costs.plan.skeleton import skeleton
from lightning_bnf.costs.plan.step import Setting, StepCost, step_cost
from lightning_bnf.costs.plan.workload import Workload, of_budget, of_rows
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.losses import Loss
from lightning_bnf.policies.attention import kernel_of, reach_of, windows_of
from lightning_bnf.policies.base import Policy
from lightning_bnf.training.optimization import Optimization, OptimizerFactory


@dataclass(frozen=True)
class Run:
    """What was configured. rows: the training rows, or None where they are not at hand; then count and tokens_per_row
    say what they are like, if known."""

    policy: Policy
    loss: Loss
    reference: str
    optimization: Optimization
    optimizer: OptimizerFactory | None
    data: PreferenceData
    precision: str
    devices: Devices
    max_tokens: int
    rows: Sequence[TokenizedRow] | None = None
    count: int | None = None
    tokens_per_row: float | None = None

    def workload(self) -> Workload:
        """Its steps and its largest micro-batch."""
        devices, kind = self.devices.count, self.devices.kind
        if self.rows is None:
            return of_budget(self.data, self.loss, self.max_tokens, devices, self.count, self.tokens_per_row)
        model = skeleton(self.policy).causal_lm
        attention = self.policy.attention or str(model.config._attn_implementation)
        halves = torch.bfloat16 if self.precision.startswith("bf16") else self.policy.dtype
        reach = reach_of(kernel_of(model, halves, kind, attention), windows_of(model.config.get_text_config()))
        return of_rows(self.rows, self.data, self.loss, attention, reach, self.max_tokens, devices, kind)


@dataclass(frozen=True)
class Assessment:
    """A run with what it goes through, what a step costs, and what that comes to on a device."""

    run: Run
    workload: Workload
    setting: Setting
    cost: StepCost
    estimate: Estimate


def assess(run: Run, workload: Workload | None = None) -> Assessment:
    """Run one step on fake tensors and see what it takes; `workload` where it is known. Raises `PolicyError` as
    `step_cost` does."""
    workload = workload or run.workload()
    setting = Setting(
        policy=run.policy,
        reference=run.reference,
        batch=workload.batch,
        token_loss=run.loss.fused,
        accumulating=workload.accumulating,
        precision=run.precision,
        device=run.devices.kind,
        sharded=run.devices.sharded,
        optimization=run.optimization,
        optimizer=run.optimizer,
    )
    cost = step_cost(setting)
    return Assessment(run, workload, setting, cost, estimate(cost, run.devices))
