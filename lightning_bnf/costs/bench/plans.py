"""What `plan` says of a run's memory beside what the run takes: whole fits of three steps, from loading on."""

import tempfile
from dataclasses import dataclass
from typing import Any

import torch

from lightning_bnf.costs.bench.steps import Workload, bare_trainer
from lightning_bnf.costs.bench.workers import Turns, Variant
from lightning_bnf.costs.plan.command import run_of
from lightning_bnf.costs.plan.overhead import fragmentation_of, overhead_of
from lightning_bnf.costs.plan.question import Question
from lightning_bnf.costs.plan.run import assess
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF, DPO, Loss
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy, Policy, QLoRAPolicy
from lightning_bnf.runtime import memory
from lightning_bnf.training.optimization import Optimization

STEPS = 3  # moments come with the first


@dataclass(frozen=True)
class Case:
    """A run: an epoch of three steps over random words. `reference` as a config names it."""

    policy: Policy
    loss: Loss
    reference: Any
    max_tokens: int
    precision: str
    device: str

    def run(self, folder: str, cache: str) -> tuple[PreferenceModule, PreferenceData]:
        """Module and data; nothing is loaded."""
        workload = Workload(self.policy.source, rows=4 * STEPS, max_tokens=self.max_tokens, layout="auto")
        optimization = Optimization(learning_rate=1e-6)
        module = PreferenceModule(self.policy, self.loss, self.reference, optimization, reference_cache=cache)
        return module, workload.data(folder)


def planned(turns: Turns, case: Case, cache: str) -> None:
    """What `plan` says, as the peak; on a CPU with what interpreter and libraries take."""
    overhead = overhead_of(case.device)
    turns.wait()
    with tempfile.TemporaryDirectory() as folder:
        module, data = case.run(folder, cache)
        trainer = {"accelerator": case.device, "devices": 1, "precision": case.precision}
        found = assess(run_of(module, data, trainer, Question()))
        parts = {part.name: part.bytes for part in found.estimate.parts}
    # The allocator of an accelerator counts tensors alone.
    beside = overhead.bytes + fragmentation_of(found).bytes if case.device == "cpu" else 0.0
    turns.done(peak_bytes=found.estimate.total + beside, beside_tensors=beside, **parts)
    turns.wait()


def measured(turns: Turns, case: Case, cache: str) -> None:
    """The same run for real, under Lightning's Trainer."""
    turns.wait()
    with tempfile.TemporaryDirectory() as folder:
        module, data = case.run(folder, cache)
        trainer = bare_trainer(folder, accelerator=case.device, precision=case.precision, max_steps=STEPS)
        peak = memory.peak_bytes(lambda: trainer.fit(module, data), torch.device(case.device))
    turns.done(peak_bytes=peak)
    turns.wait()


def cases(source: str, device: str) -> dict[str, Case]:
    """Settings that differ in all that memory depends on."""
    wide: Any = "float32" if device == "cpu" else "bfloat16"
    full, checkpointed = FullPolicy(source), FullPolicy(source, gradient_checkpointing=True)
    return {
        "LoRA, base as reference, BNF, 640 tokens": Case(
            LoRAPolicy(source, dtype=wide), BNF(), "auto", 640, "32-true", device
        ),
        "full, cached reference, DPO, 1024 tokens": Case(full, DPO(beta=0.1), "cache", 1024, "32-true", device),
        "full with checkpointing, frozen copy, BNF, 2048 tokens": Case(
            checkpointed, BNF(), "copy", 2048, "32-true", device
        ),
        "full, bf16-true, frozen copy, DPO, 1024 tokens": Case(full, DPO(beta=0.1), "copy", 1024, "bf16-true", device),
        "QLoRA, cached reference, BNF, 1024 tokens": Case(QLoRAPolicy(source), BNF(), "cache", 1024, "32-true", device),
    }


def variants(source: str, cache: str, device: str) -> list[list[Variant]]:
    """Each case planned and measured, in processes of their own."""
    return [
        [
            Variant("plan", name, word, contest, {"case": case, "cache": f"{cache}/plan-{i}"}, once=True)
            for word, contest in (("planned", planned), ("measured", measured))
        ]
        for i, (name, case) in enumerate(cases(source, device).items())
    ]
