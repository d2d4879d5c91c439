"""TRL's trainers beside ours: the same rows, the same weights, the same optimizer steps."""

import tempfile
from typing import Any

import torch

from lightning_bnf.costs.bench import data
from lightning_bnf.costs.bench.steps import LEARNING_RATE, Workload, preference
from lightning_bnf.costs.bench.trainings import Training
from lightning_bnf.costs.bench.workers import Turns, Variant
from lightning_bnf.policies.sources import load_model, load_tokenizer, resolve_source
from lightning_bnf.runtime.refusal import Refusal

MAX_LENGTH = 4096
PEERS_TOKENS = 512  # of our micro-batches: a pair or two, for half of TRL's memory; more is a little faster


def trl(turns: Turns, workload: Workload, trainer: str, precomputed: bool = False) -> None:
    """A TRL trainer, one optimizer step a turn: full fine-tuning in float32, no accumulation."""
    resolve_source(workload.source)
    paired = trainer == "DPO"
    settings: dict[str, Any] = {
        "per_device_train_batch_size": workload.pairs if paired else 2 * workload.pairs,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": not torch.cuda.is_available(),
    }
    if precomputed:
        settings["precompute_ref_log_probs"] = True
    model = load_model(workload.source, torch.float32)
    _take_steps(turns, trainer, workload, model, load_tokenizer(workload.source), settings)


def trl_on_gpu(turns: Turns, training: Training, settings: dict[str, Any]) -> None:
    """TRL's DPOTrainer on what `training` trains, as people train such models: float32 weights under autocast, gradient
    checkpointing, a few pairs at a time."""
    source = training.policy().source
    model = load_model(source, torch.float32)
    given = _AS_TRAINED | {"use_cpu": training.device == "cpu"} | settings
    _take_steps(turns, "DPO", training.workload, model, load_tokenizer(source), given)


def unsloth(turns: Turns, training: Training) -> None:
    """The same through Unsloth, which changes TRL's trainer: it must be imported first."""
    import unsloth as library

    library.PatchDPOTrainer()
    model, tokenizer = library.FastLanguageModel.from_pretrained(
        training.policy().source, max_seq_length=MAX_LENGTH, dtype=None, load_in_4bit=False, full_finetuning=True
    )
    _take_steps(turns, "DPO", training.workload, model, tokenizer, _AS_TRAINED)


_AS_TRAINED: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_checkpointing": True, "bf16": True}


def _take_steps(
    turns: Turns, trainer: str, workload: Workload, model: Any, tokenizer: Any, settings: dict[str, Any]
) -> None:
    """An optimizer step a turn, of as many pairs as the workload's, by a trainer of TRL."""
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

    rows = data.pairs(workload.rows, scale=workload.scale)
    paired = trainer == "DPO"
    given = rows if paired else data.unpaired(rows)
    if trainer == "SFT":
        given = [{"prompt": row["prompt"], "completion": row["completion"]} for row in given]
    at_once = (1 if paired else 2) * workload.pairs
    with tempfile.TemporaryDirectory() as folder:
        kept = {
            "output_dir": folder,
            "gradient_accumulation_steps": at_once // min(at_once, settings["per_device_train_batch_size"]),
            "learning_rate": LEARNING_RATE,
            "max_steps": 10_000,
            "max_length": MAX_LENGTH,
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
        }
        made = getattr(library, f"{trainer}Trainer")(
            model=model,
            args=getattr(library, f"{trainer}Config")(**kept | settings),
            train_dataset=Dataset.from_list(given),
            processing_class=tokenizer,
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
