"""Training steps of models of known shapes with random weights: time, operations, waits for the device, and memory
beside what `plan` says of it."""

import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from transformers import AutoModelForCausalLM

from lightning_bnf import losses
from lightning_bnf.costs.bench.steps import TakeTurns, Workload, bare_trainer
from lightning_bnf.costs.bench.workers import Turns
from lightning_bnf.costs.plan.advice import with_checkpointing
from lightning_bnf.costs.plan.command import run_of
from lightning_bnf.costs.plan.overhead import expected_bytes
from lightning_bnf.costs.plan.question import Question
from lightning_bnf.costs.plan.run import Run, assess
from lightning_bnf.costs.plan.step import step_flops
from lightning_bnf.costs.plan.sweep import SHAPES, Shape
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.steps.layout import LAYOUTS
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy, Policy, QLoRAPolicy
from lightning_bnf.policies.sources import load_tokenizer
from lightning_bnf.runtime.files import replacing
from lightning_bnf.training.budget import DrySteps, fixed_cost
from lightning_bnf.training.optimization import Optimization

PRECISION = "bf16-mixed"
TOY = "toy"
_TOY = Shape(64, 128, 2, 4, 2, 0, tied=True)
_METHODS: dict[str, tuple[type[Policy], Any, Any]] = {
    "full": (FullPolicy, "float32", "cache"),
    "LoRA": (LoRAPolicy, "bfloat16", "auto"),
    "QLoRA": (QLoRAPolicy, "bfloat16", "auto"),
}
"""Name -> policy, dtype and reference."""


def model_folder(shape: str, tokenizer: str, folder: str, device: str) -> str:
    """A model of a shape of `plan --sweep`, or a toy, with random weights in bfloat16 and the tokenizer of a source:
    made once in `folder`, where it takes two bytes a weight."""
    made = Path(folder) / f"model-{shape.split()[0]}"
    if not made.is_dir():
        words = load_tokenizer(tokenizer)
        config = (_TOY._replace(vocabulary=len(words)) if shape == TOY else SHAPES[shape]).config()
        with replacing(made, keep=True) as unfinished:
            with torch.device(device):
                model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
            model.save_pretrained(unfinished)
            words.save_pretrained(unfinished)
        del model
        if device == "cuda":  # it is no part of what is measured
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    return str(made)


@dataclass(frozen=True)
class Training:
    """What is trained on what.

    shape: a name of `SHAPES`, or a toy; tokenizer: a source; folder: where models and reference caches go; memory:
    bytes that the process may take of the GPU, None for all
    """

    shape: str
    method: Literal["full", "LoRA", "QLoRA"]
    device: str
    tokenizer: str
    folder: str
    workload: Workload
    attention: str | None = None
    memory: float | None = None
    loss: str = "BNF"

    def policy(self) -> Policy:
        """It, not loaded, on a model that is made where there is none yet."""
        kind, dtype, _ = _METHODS[self.method]
        source = model_folder(self.shape, self.tokenizer, self.folder, self.device)
        return kind(source, dtype=dtype, attention=self.attention, gradient_checkpointing=True)

    def module(self) -> PreferenceModule:
        """A loss on it; nothing is loaded."""
        reference = _METHODS[self.method][2]
        optimization = Optimization(learning_rate=1e-6, schedule="constant", warmup_ratio=0.0)
        cache = f"{self.folder}/cache-{self.shape.split()[0]}-{self.workload.scale}"
        return PreferenceModule(
            self.policy(), getattr(losses, self.loss)(), reference, optimization, reference_cache=cache
        )

    def trainer(self, folder: str, **settings: Any) -> Trainer:
        """For as many steps as there are turns."""
        return bare_trainer(folder, accelerator=self.device, precision=PRECISION, max_steps=10_000, **settings)


def train(turns: Turns, training: Training) -> None:
    """A step a turn. Told beside TakeTurns' numbers: `flops` of the step, without what checkpointing computes again;
    `planned_bytes`, which is the plan's for a device; `budget`, the tokens that a micro-batch may have."""
    if training.memory is not None and training.device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, training.memory / total))
    with tempfile.TemporaryDirectory() as folder:
        module, data = training.module(), training.workload.data(folder)
        numbers: dict[str, float] = {}
        if data.max_tokens != "auto":  # else the plan is of another budget than the run finds
            settings = {"accelerator": training.device, "devices": 1, "precision": PRECISION}
            numbers = _planned(run_of(module, data, settings, Question()))
        each = numbers.pop("flops_a_token", None)
        training.trainer(folder, callbacks=[_Steps(turns, numbers, each)]).fit(module, data)


def _planned(run: Run) -> dict[str, float]:
    found, plain = assess(run), with_checkpointing(run, False)
    flops = step_flops(replace(found.setting, policy=plain.policy))
    besides = 1 if run.reference in ("copy", "adapter_off") else 0
    each = (flops.both + besides * flops.forward) / found.workload.batch_tokens
    bytes = found.estimate.total if run.devices.kind == "cuda" else expected_bytes(found)
    return {"planned_bytes": bytes, "flops_a_token": each}


class _Steps(TakeTurns):
    """Tells of each step what is known of it."""

    def __init__(self, turns: Turns, numbers: dict[str, float], flops_a_token: float | None):
        super().__init__(turns)
        self.numbers, self.flops_a_token = numbers, flops_a_token

    def told(self, trainer: Trainer, batch: Any) -> dict[str, Any]:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PreferenceData)
        found = super().told(trainer, batch) | self.numbers | {"budget": data.budget.max_tokens}
        return found if self.flops_a_token is None else found | {"flops": self.flops_a_token * found["tokens"]}


def count_waits(turns: Turns, training: Training) -> None:
    """A step a turn, with torch's alarm for operations that wait for the GPU: `waits` of the step, those of its
    micro-batches among them, and where they are in the code."""
    with tempfile.TemporaryDirectory() as folder:
        module, data = training.module(), training.workload.data(folder)
        training.trainer(folder, callbacks=[_Waits(turns)]).fit(module, data)


class _Waits(TakeTurns):
    """Keeps what torch warns of between a step's begin and its end."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._listening = warnings.catch_warnings(record=True)
        heard = self._listening.__enter__()
        assert heard is not None
        self._heard = heard
        warnings.simplefilter("always")
        _alarm("warn")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        self._until_optimizer = len(self._places())

    def told(self, trainer: Trainer, batch: Any) -> dict[str, Any]:
        _alarm("default")
        self._listening.__exit__(None, None, None)
        places = self._places()
        own = {"waits": len(places), "waits_before_optimizer": self._until_optimizer, "places": places}
        return super().told(trainer, batch) | own

    def _places(self) -> list[str]:
        heard = [said for said in self._heard if "synchroniz" in str(said.message)]
        return [f"{said.filename.split('site-packages/')[-1]}:{said.lineno}" for said in heard]


def _alarm(mode: str) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(mode)


def micro_batches(turns: Turns, training: Training) -> None:
    """A micro-batch of 1, 2, 4 and 8 rows a turn, forward and backward: the seconds of each, and from the first and the
    last what a micro-batch costs beside its tokens, in tokens (`call_tokens`)."""
    policy = training.policy()
    with tempfile.TemporaryDirectory() as folder:
        file = training.workload.written(folder)
        rows, _ = load_rows(file, policy.tokenizer, training.workload.data(folder).options, policy.end_ids)
    policy.load()
    policy.to(training.device)
    steps = DrySteps(policy, rows, LAYOUTS["shared_prompt"], (1, -1), token_loss=True)
    with torch.autocast(training.device, torch.bfloat16, cache_enabled=False):
        while True:
            turns.wait()
            found = {count: steps.on(range(count)) for count in (1, 2, 4, 8)}
            numbers = {f"seconds_of_{dry.tokens}_tokens": dry.seconds for dry in found.values()}
            turns.done(**numbers, call_tokens=fixed_cost(found[1], found[8], 0))
