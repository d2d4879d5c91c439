"""A table: models from 1B to 70B, by full fine-tuning, LoRA and QLoRA, on GPUs of a name."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lightning_bnf.costs.plan.duration import Rate, duration, named_rate
from lightning_bnf.costs.plan.estimate import Devices
from lightning_bnf.costs.plan.overhead import CUDA_CONTEXT
from lightning_bnf.costs.plan.question import Question
from lightning_bnf.costs.plan.report import GB
from lightning_bnf.costs.plan.run import Run, assess
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF
from lightning_bnf.policies import FullPolicy, LoRAPolicy, Policy, QLoRAPolicy
from lightning_bnf.results.markdown import markdown_table
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.optimization import Optimization

if TYPE_CHECKING:
    from transformers import LlamaConfig

ROWS, TOKENS_PER_ROW, STEP_ROWS, MAX_TOKENS = 10_000, 1000.0, 128, 8192


class Shape(NamedTuple):
    """A decoder as public configs have it: model and inner width, layers, heads, heads of keys, vocabulary, and whether
    embeddings and head are one."""

    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool = False

    def config(self) -> "LlamaConfig":
        """It as a Llama, whose layers the others' are as far as memory and products go."""
        from transformers import LlamaConfig  # with all of a model's parts, which --help can do without

        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            max_position_embeddings=8192,
            tie_word_embeddings=self.tied,
        )


SHAPES = {
    "1B (Llama-3.2-1B)": Shape(2048, 8192, 16, 32, 8, 128256, tied=True),
    "3B (Llama-3.2-3B)": Shape(3072, 8192, 28, 24, 8, 128256, tied=True),
    "8B (Llama-3-8B)": Shape(4096, 14336, 32, 32, 8, 128256),
    "14B (Qwen2.5-14B)": Shape(5120, 13824, 48, 40, 8, 152064),
    "32B (Qwen2.5-32B)": Shape(5120, 27648, 64, 40, 8, 152064),
    "70B (Llama-3-70B)": Shape(8192, 28672, 80, 64, 8, 128256),
}


def sweep(question: Question, shapes: dict[str, Shape] = SHAPES) -> str:
    """The table, in Markdown: GB of each card and hours, and whether that fits.

    BNF on 10,000 rows of 1,000 tokens, or as many as `question` says, micro-batches of 8,192 tokens, gradient
    checkpointing, bf16-mixed; adapters on a bfloat16 base, all weights in float32 with a cached reference and sharded
    over the GPUs (FSDP2). Raises `Refusal` where no GPU is named.
    """
    gpu = question.named
    if gpu is None:
        raise Refusal("gpu must be named for --sweep true, such as h100, got null")
    count, memory = question.gpus or 1, question.gpu_memory or gpu.memory
    given = None if question.flops is None else Rate(1e12 * question.flops, f"{question.flops:g} TFLOP/s, as given")
    rate = given or named_rate(gpu)
    lines: list[list[str]] = [["model", "method", "GB a card", "hours", f"fits {count} x {gpu.name}, {memory:g} GB"]]
    data = PreferenceData(examples_per_step=STEP_ROWS, max_tokens=MAX_TOKENS)
    rows, tokens = question.rows or ROWS, question.tokens_per_row or TOKENS_PER_ROW
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(3 * len(shapes), "Planning", "run", delay=2) as bar,
    ):
        for name, shape in shapes.items():
            path = Path(folder) / name.split()[0]
            shape.config().save_pretrained(path)
            for method, policy, reference in _methods(str(path)):
                sharded = isinstance(policy, FullPolicy) and count > 1
                devices = Devices("cuda", count, "fsdp2" if sharded else "ddp" if count > 1 else "one device")
                run = Run(
                    policy, BNF(), reference, Optimization(learning_rate=1e-6), None, data, "bf16-mixed", devices,
                    MAX_TOKENS, count=rows, tokens_per_row=tokens,
                )  # fmt: skip
                found = assess(run)
                needed = (found.estimate.total + CUDA_CONTEXT) / GB
                lasts = duration(found, -(-rows // STEP_ROWS), rate)
                hours = (lasts.seconds or 0.0) / 3600 if lasts else 0.0
                lines.append([name, method, f"{needed:.1f}", f"{hours:.2g}", "yes" if needed <= memory else "no"])
                bar.update()
    return f"{rows:,} rows of {tokens:g} tokens, {rate.origin}\n\n{markdown_table(*lines, padded=True)}"


def _methods(source: str) -> list[tuple[str, Policy, str]]:
    """Name, policy and reference."""
    return [
        ("full", FullPolicy(source, gradient_checkpointing=True), "cache"),
        ("LoRA", LoRAPolicy(source, dtype="bfloat16", gradient_checkpointing=True), "adapter_off"),
        ("QLoRA", QLoRAPolicy(source, gradient_checkpointing=True), "adapter_off"),
    ]
