"""Whole training steps of full fine-tuning in float32: ours under Lightning's Trainer, and a model's bare products."""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_bnf import losses
from lightning_bnf.costs.bench import data
from lightning_bnf.costs.bench.workers import Turns, Variant, repeat
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.steps.layout import LAYOUTS, LayoutName
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.losses import Loss, StepContext, TokenLoss, Tokens
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy
from lightning_bnf.policies.sources import load_end_ids, load_model, load_tokenizer, resolve_source
from lightning_bnf.runtime.memory import keep_freed_memory
from lightning_bnf.training.optimization import Optimization

LEARNING_RATE = 1e-6
SEED = 1


@dataclass(frozen=True)
class Workload:
    """What all variants of a comparison train on.

    source: the model; rows: pairs in the data; pairs: of a step; max_tokens, layout: of our micro-batches; scale: how
    many times as long as `data.pairs` has them the rows are
    """

    source: str
    rows: int = 64
    pairs: int = 4
    max_tokens: int | Literal["auto"] = 768
    layout: LayoutName = "shared_prompt"
    scale: int = 1

    def written(self, folder: str | Path) -> str:
        """A file of the rows."""
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in data.pairs(self.rows, scale=self.scale)))
        return str(path)

    def data(self, folder: str | Path) -> PreferenceData:
        """It as a data module, of a file in a folder."""
        return PreferenceData(
            self.written(folder),
            examples_per_step=self.pairs,
            max_tokens=self.max_tokens,
            seed=SEED,
            layout=self.layout,
            options=data.AS_TEXT,
        )


def bare_trainer(folder: str, **settings: Any) -> Trainer:
    """Lightning's Trainer on one device without anything that is not asked for."""
    kept: dict[str, Any] = {
        "devices": 1,
        "max_epochs": -1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return Trainer(**kept | settings)


class FineTuning(TokenLoss):
    """Fine-tuning on both answers of a pair: the same tokens as every preference loss, and no reference."""

    needs_reference = False

    def token_weight(self, tokens: Tokens, step: StepContext) -> Tensor:
        return 1 / tokens.length


class TakeTurns(Callback):
    """One optimizer step a turn; `before_optimizer` is its time without the optimizer's own, `tokens` are those that
    went through the layers."""

    def __init__(self, turns: Turns):
        self.turns = turns
        self._before = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.turns.wait()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self._before = time.perf_counter() - self.turns.started

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.turns.done(**self.told(trainer, batch))

    def told(self, trainer: Trainer, batch: Any) -> dict[str, Any]:
        """What is told of a step."""
        loss = float(trainer.callback_metrics["train/loss"])
        tokens = sum(one.inputs["input_ids"].numel() for one in batch.micro_batches)
        return {"before_optimizer": self._before, "loss": loss, "tokens": tokens}


def ours(turns: Turns, workload: Workload, loss: str, arguments: dict[str, Any], reference: Any, cache: str) -> None:
    """Our module under Lightning's Trainer."""
    made: Loss = FineTuning() if loss == "FineTuning" else getattr(losses, loss)(**arguments)
    optimization = Optimization(learning_rate=LEARNING_RATE, schedule="constant", warmup_ratio=0.0)
    module = PreferenceModule(FullPolicy(workload.source), made, reference, optimization, reference_cache=cache)
    with tempfile.TemporaryDirectory() as folder:
        trainer = bare_trainer(folder, max_steps=10_000, callbacks=[TakeTurns(turns)])
        trainer.fit(module, workload.data(folder))


def linear_products(turns: Turns, workload: Workload) -> None:
    """Every linear layer's products with the tokens of the same steps: forward, and both of the backward pass."""
    keep_freed_memory(True)  # as a run does
    resolve_source(workload.source)
    model = load_model(workload.source, torch.float32)
    layers = [module.weight.detach() for module in model.modules() if isinstance(module, nn.Linear)]
    head = cast(Tensor, model.get_output_embeddings().weight).data_ptr()
    gradients = [torch.zeros_like(weight) for weight in layers]
    steps = iter(token_counts(workload, 1000))

    def run() -> None:
        for tokens, scored in next(steps):
            for weight, gradient in zip(layers, gradients):
                x = weight.new_ones(scored if weight.data_ptr() == head else tokens, weight.shape[1])
                for some in x.split(512):
                    y = some @ weight.T
                    torch.mm(y, weight)
                    gradient.addmm_(y.T, some)

    repeat(turns, run)


def token_counts(workload: Workload, steps: int) -> list[list[tuple[int, int]]]:
    """For each step its micro-batches' counts: tokens that go through the layers, and tokens that are scored."""
    layout = LAYOUTS[workload.layout]
    with tempfile.TemporaryDirectory() as folder:
        ends = load_end_ids(workload.source, None)
        rows, _ = load_rows(workload.written(folder), load_tokenizer(workload.source), data.AS_TEXT, ends)
    lengths = layout.lengths_of(rows, (1, -1))
    assert isinstance(workload.max_tokens, int)
    plan = StepPlan(lengths, workload.pairs, workload.max_tokens, SEED, packed=layout.packed)
    counts = []
    for i in range(steps):
        epoch, step = divmod(i, len(plan))
        batches = [layout.batch([rows[k] for k in batch], (1, -1)) for batch in plan.micro_batches(epoch, step)]
        counts.append([(batch.inputs["input_ids"].numel(), len(batch.target)) for batch in batches])
        if len(counts) == 64:
            return counts * (1 + steps // 64)
    return counts


def preference(workload: Workload, suite: str, case: str, name: str, cache: str, **options: Any) -> Variant:
    """A variant of ours; `options`: loss, arguments, reference."""
    arguments = {"arguments": {}, "reference": "cache", "cache": cache} | options
    return Variant(suite, case, name, ours, {"workload": workload} | arguments)


def variants(source: str, cache: str) -> list[list[Variant]]:
    """BNF, DPO and KTO beside fine-tuning on the same tokens, and the bare products of the model's layers."""
    workload = Workload(source)
    case = f"{workload.pairs} pairs a step, {workload.layout}, cached reference"
    group = [
        preference(workload, "step", case, "fine-tuning", cache, loss="FineTuning", reference="auto"),
        preference(workload, "step", case, "BNF", cache, loss="BNF"),
        preference(workload, "step", case, "DPO", cache, loss="DPO"),
        Variant("step", case, "linear products", linear_products, {"workload": workload}),
    ]
    return [group]


def layout_variants(source: str, cache: str) -> list[list[Variant]]:
    """BNF on the same pairs in all layouts, and padded to the longest of the whole step, which no plan has cut."""
    names: tuple[LayoutName, ...] = ("padded", "packed", "shared_prompt", "packed_shared")
    case = "BNF, 4 pairs a step, cached reference"
    group = [preference(Workload(source, layout=name), "layouts", case, name, cache, loss="BNF") for name in names]
    uncut = Workload(source, layout="padded", max_tokens=10**6)
    return [[*group, preference(uncut, "layouts", case, "padded, steps uncut", cache, loss="BNF")]]


def scaling_variants(source: str, cache: str) -> list[list[Variant]]:
    """BNF steps of more and more pairs, hence tokens, under one budget of a micro-batch."""
    groups = []
    for pairs in (4, 8, 16, 32, 64):
        workload = Workload(source, rows=256, pairs=pairs)
        counts = token_counts(workload, workload.rows // pairs)  # an epoch
        mean = sum(tokens for step in counts for tokens, _ in step) // len(counts)
        case = f"BNF, micro-batches of at most {workload.max_tokens} tokens"
        name = f"{pairs} pairs a step, {mean} tokens on average"
        groups.append([preference(workload, "scaling", case, name, cache, loss="BNF")])
    return groups
