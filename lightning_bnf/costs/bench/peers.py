"""TRL's trainers beside ours: the same rows, the same weights, the same optimizer steps."""

import tempfile
from typing import Any

import torch

from lightning_bnf.costs.bench import data
from lightning_bnf.costs.bench.steps import LEARNING_RATE, Workload, preference
from lightning_bnf.costs.bench.workers import Turns, Variant
from lightning_bnf.policies.sources import load_model, load_tokenizer, resolve_source
from lightning_bnf.runtime.refusal import Refusal

PEERS_TOKENS = 512  # of our micro-batches: a pair or two, for half of TRL's memory; more is a little faster


def trl(turns: Turns, workload: Workload, trainer: str, precomputed: bool = False) -> None:
    """A TRL trainer, one optimizer step a turn: full fine-tuning in float32, no accumulation."""
    try:
        import trl as library
        from datasets import Dataset
        from transformers import TrainerCallback
    except ImportError as error:
        raise Refusal(
            "suites must be without peers where TRL is not installed, got it: pip install trl==1.16.0"
        ) from error

    class TakeTurns(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turns.wait()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.done()

    rows = data.pairs(workload.rows)
    paired = trainer == "DPO"
    given = rows if paired else data.unpaired(rows)
    if trainer == "SFT":
        given = [{"prompt": row["prompt"], "completion": row["completion"]} for row in given]
    resolve_source(workload.source)
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "output_dir": folder,
            "per_device_train_batch_size": workload.pairs if paired else 2 * workload.pairs,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": False,
            "learning_rate": LEARNING_RATE,
            "max_steps": 10_000,
            "max_length": 4096,
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "bf16": False,
            "use_cpu": not torch.cuda.is_available(),
        }
        if precomputed:
            settings["precompute_ref_log_probs"] = True
        made = getattr(library, f"{trainer}Trainer")(
            model=load_model(workload.source, torch.float32),
            args=getattr(library, f"{trainer}Config")(**settings),
            train_dataset=Dataset.from_list(given),
            processing_class=load_tokenizer(workload.source),
            callbacks=[TakeTurns()],
        )
        made.train()


def variants(source: str, cache: str) -> list[list[Variant]]:
    """Ours against TRL, a few at a time, so that all fit into memory."""
    workload = Workload(source, max_tokens=PEERS_TOKENS)
    size = f"{workload.pairs} pairs a step"

    def theirs(case: str, trainer: str, precomputed: bool = False) -> Variant:
        arguments = {"workload": workload, "trainer": trainer, "precomputed": precomputed}
        return Variant("peers", case, f"TRL {trainer}Trainer", trl, arguments)

    def ours(case: str, loss: str, reference: str = "cache") -> Variant:
        return preference(workload, "peers", case, f"ours, {loss}", cache, loss=loss, reference=reference)

    default, precomputed, kto, tuning = size, f"{size}, precomputed reference", f"{size}, KTO", f"{size}, fine-tuning"
    return [
        [ours(default, "BNF"), ours(default, "DPO"), theirs(default, "DPO")],
        [ours(precomputed, "DPO"), theirs(precomputed, "DPO", precomputed=True)],
        [ours(kto, "KTO"), theirs(kto, "KTO")],
        [ours(tuning, "FineTuning", "auto"), theirs(tuning, "SFT")],
    ]
