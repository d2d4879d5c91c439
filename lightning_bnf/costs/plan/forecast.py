"""What a run that begins now will be: what it goes over, and the memory and time that are expected of it."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightning_bnf.costs.plan.duration import assumed_rate, duration
from lightning_bnf.costs.plan.estimate import Devices
from lightning_bnf.costs.plan.overhead import expected_bytes
from lightning_bnf.costs.plan.run import Run, assess
from lightning_bnf.costs.plan.workload import of_plan
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.steps.loader import StepLoader
from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.progress import lasting
from lightning_bnf.training.strategies import parallelism_of

GB = 1e9
LOOKED_AT = 64  # steps of an epoch whose tokens are counted; the others are taken to be like them


@dataclass(frozen=True)
class Expected:
    """Bytes of each device, seconds of training, and the rate that these were reckoned with, in words."""

    bytes: float
    seconds: float
    origin: str


@dataclass(frozen=True)
class Forecast:
    """rows, validation: that are trained on and validated with; steps: optimizer steps of the run, of `step_rows` rows;
    done: of an earlier run that is gone on with; tokens: of an epoch, padding included, or None; expected: None where
    it could not be planned, with `why`; folder: where all of the run goes."""

    rows: int
    validation: int
    steps: int
    step_rows: int
    done: int
    tokens: int | None
    folder: str
    expected: Expected | None
    why: str = ""

    def lines(self) -> tuple[str, str]:
        """What is going to happen, and how to stop it and go on."""
        validation = f"{self.validation:,} for validation" if self.validation else "none for validation"
        steps = f"steps {self.done + 1} to {self.steps}" if self.done else f"{self.steps:,} steps"
        parts = [f"training on {self.rows:,} rows, {validation}", f"{steps} of {self.step_rows} rows"]
        if self.tokens is not None:
            parts.append(f"about {_round(self.tokens)} tokens an epoch")
        if self.expected is not None:
            parts.append(
                f"about {self.expected.bytes / GB:.1f} GB a device and {lasting(self.expected.seconds)} for "
                f"the steps ({self.expected.origin})"
            )
        elif self.why:
            parts.append(f"memory and time not planned ({self.why})")
        return (
            "; ".join(parts),
            f"everything goes to {self.folder}; Ctrl-C saves a checkpoint and stops, --ckpt_path last goes on from it",
        )


def forecast(trainer: Trainer, module: PreferenceModule, data: PreferenceData, plan: bool = True) -> Forecast:
    """Of a run whose model is loaded and whose first step comes next. `plan`: whether a step on fake tensors says what
    memory and time it takes; what cannot be planned never ends a run."""
    loader: Any = trainer.train_dataloader
    tokens = expected = None
    why, rows = "", len(data.rows["train"].with_completions())
    if plan and isinstance(loader, StepLoader):
        try:
            tokens, expected = _expected(trainer, module, data, loader)
        except Exception as error:  # whatever an architecture does to a forecast, the run goes on
            why = str(error).strip().split("\n")[0]
    return Forecast(
        rows=rows,
        validation=len(data.rows["validation"].with_completions()) if data.rows.get("validation") else 0,
        steps=int(trainer.estimated_stepping_batches),
        step_rows=min(data.step_size_for(rows), rows),
        done=trainer.global_step,
        tokens=tokens,
        folder=str(trainer.default_root_dir),
        expected=expected,
        why=why,
    )


def _expected(
    trainer: Trainer, module: PreferenceModule, data: PreferenceData, loader: StepLoader
) -> tuple[int | None, Expected]:
    device = trainer.strategy.root_device
    devices = Devices(device.type, trainer.world_size, parallelism_of(trainer.strategy))
    run = Run(
        policy=module.policy,
        loss=module.loss,
        reference=module.reference_kind,
        optimization=module.optimization,
        optimizer=module.optimizer_factory,
        data=data,
        precision=str(trainer.precision),
        devices=devices,
        max_tokens=data.budget.max_tokens,
        rows=loader.rows,
    )
    work = of_plan(loader.plan, loader.rows, loader.layout, module.loss.labels, trainer.world_size, LOOKED_AT)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # the run draws what it would draw
        found = assess(run, work)
        steps = int(trainer.estimated_stepping_batches) - trainer.global_step
        dtype = torch.bfloat16 if run.precision.startswith("bf16") else module.policy.dtype
        rate = assumed_rate(device, dtype)
        lasts = duration(found, steps, rate, cache=False)
    seconds = 0.0 if lasts is None or lasts.seconds is None else lasts.seconds
    return work.tokens, Expected(expected_bytes(found), seconds, rate.origin)


def _round(count: int) -> str:
    """Two digits and a bit: 61,834 -> 62,000."""
    digits = max(len(str(count)) - 2, 0)
    return f"{round(count, -digits):,}"
