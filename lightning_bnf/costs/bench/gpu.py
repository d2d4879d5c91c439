"""The half hour on one GPU: everything that no CPU can tell, section by section."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from lightning_bnf.costs.bench import heads, peers, trainings
from lightning_bnf.costs.bench.steps import Workload
from lightning_bnf.costs.bench.trainings import TOY, Training
from lightning_bnf.costs.bench.workers import Variant
from lightning_bnf.policies.head.tiles import GPU_TILE_BYTES

SUITE = "gpu"
ONE, EIGHT = "1B (Llama-3.2-1B)", "8B (Llama-3-8B)"
CARD = 24e9
"""Bytes of the small card that a larger one is cut down to."""


def variants(tokenizer: str, folder: str, rehearse: bool) -> list[list[Variant]]:
    """All sections, the cheapest first; a rehearsal is of toys on a CPU."""
    trained = _Trained(tokenizer, folder, rehearse)
    return [
        *_heads(rehearse),
        *trained.fixed_costs(),
        *trained.steps(),
        trained.waits(),
        trained.card(),
        *trained.peers(),
    ]


def _heads(rehearse: bool) -> list[list[Variant]]:
    device = "cpu" if rehearse else "cuda"
    tokens, hidden, vocabulary = (32, 16, 300) if rehearse else (4096, 4096, 128256)
    exact = (
        {"tokens": 31, "hidden": 16, "vocabulary": 301}
        if rehearse
        else {"tokens": 301, "hidden": 256, "vocabulary": 50257}
    )
    groups = [
        [
            Variant(
                SUITE, "head against float64", dtype, heads.against_float64, exact | {"device": device, "dtype": dtype}
            )
            for dtype in ("float32", "bfloat16")
        ]
    ]
    rows = GPU_TILE_BYTES["trained"] // (4 * 128256)
    sizes: dict[str, Any] = {
        "rows": 8 if rehearse else rows,
        "vocabulary": vocabulary,
        "device": device,
        "dtype": "bfloat16",
    }
    groups.append(
        [
            Variant(SUITE, f"softmax of {sizes['rows']} x {vocabulary}", name, heads.softmaxes, {"kind": kind} | sizes)
            for name, kind in (("the head's kernel", "chosen"), ("plain torch", "torch"))
        ]
    )
    sizes = {"tokens": tokens, "hidden": hidden, "vocabulary": vocabulary, "device": device, "dtype": "bfloat16"}
    for train_head in (True, False):
        case = f"head {'trained' if train_head else 'frozen'}, {tokens} tokens, {hidden} x {vocabulary}"
        kinds: dict[str, dict[str, Any]] = {"bare products": {"kind": f"products:{tokens // 4}"}}
        for size in (27, 28, 29, 30):
            kinds[f"BNF, tiles of {2 ** (size - 20)} MiB"] = {"kind": "ours", "tile_bytes": 2**size}
        kinds["sequence loss"] = {"kind": "recomputed"}
        groups.append(
            [
                Variant(SUITE, case, name, heads.contest, sizes | {"train_head": train_head} | arguments)
                for name, arguments in kinds.items()
            ]
        )
    return groups


class _Trained:
    """Sections that train models."""

    def __init__(self, tokenizer: str, folder: str, rehearse: bool):
        self.tokenizer, self.folder, self.rehearse = tokenizer, folder, rehearse

    def training(self, shape: str, method: Any, attention: str | None = None, **changes: Any) -> Training:
        """Of 16 pairs a step of about 1,000 tokens; a toy's are few and short."""
        memory = changes.pop("memory", None)
        size = (
            {"rows": 8, "pairs": 2, "max_tokens": 700}
            if self.rehearse
            else {"rows": 64, "pairs": 16, "max_tokens": 8192, "scale": 4}
        )
        kept = {name: value for name, value in changes.items() if not (self.rehearse and name == "scale")}
        device = "cpu" if self.rehearse else "cuda"
        workload = Workload("", **size | kept)
        return Training(
            TOY if self.rehearse else shape, method, device, self.tokenizer, self.folder, workload, attention, memory
        )

    def variant(self, case: str, name: str, training: Training, contest: Any = trainings.train) -> Variant:
        """Alone on its GPU."""
        return Variant(SUITE, case, name, contest, {"training": training}, alone=True)

    def fixed_costs(self) -> list[list[Variant]]:
        """What a micro-batch costs beside its tokens."""
        return [
            [
                self.variant(
                    "micro-batches", f"LoRA, {shape.split()[0]}", self.training(shape, "LoRA"), trainings.micro_batches
                )
            ]
            for shape in (ONE, EIGHT)
        ]

    def steps(self) -> list[list[Variant]]:
        """Tokens a second, operations a second, and memory."""
        short, long = "LoRA, 8B, pairs of about 1,000 tokens", "LoRA, 8B, pairs of about 3,000 tokens"
        many = [
            ("shared prompts", self.training(EIGHT, "LoRA")),
            ("padded", self.training(EIGHT, "LoRA", layout="padded")),
        ]
        longer = [("shared prompts", self.training(EIGHT, "LoRA", scale=12))]
        if not self.rehearse:  # no CPU has them
            many.append(("shared prompts, flex attention", self.training(EIGHT, "LoRA", "flex_attention")))
            longer.append(("shared prompts, flex attention", self.training(EIGHT, "LoRA", "flex_attention", scale=12)))
            if find_spec("flash_attn"):
                many.append(
                    ("packed, flash attention", self.training(EIGHT, "LoRA", "flash_attention_2", layout="packed"))
                )
        groups = [[self.variant(case, *each) for each in some] for case, some in ((short, many), (long, longer))]
        for shape, method in ((EIGHT, "QLoRA"), (ONE, "full")):
            case = f"{method}, {shape.split()[0]}, pairs of about 1,000 tokens"
            groups.append([self.variant(case, "shared prompts", self.training(shape, method))])
        return groups

    def waits(self) -> list[Variant]:
        """How often a step waits for the GPU."""
        return [
            self.variant(
                "waits for the GPU, LoRA, 1B", layout, self.training(ONE, "LoRA", layout=layout), trainings.count_waits
            )
            for layout in ("shared_prompt", "padded", "packed")
        ]

    def card(self) -> list[Variant]:
        """Whether `max_tokens: auto` finds a budget on a card of 24 GB, and lives."""
        training = self.training(EIGHT, "QLoRA", max_tokens="auto", scale=12, memory=CARD)
        return [self.variant("QLoRA, 8B, in 24 GB, max_tokens auto", "shared prompts", training)]

    def peers(self) -> list[list[Variant]]:
        """Full fine-tuning with DPO's reference at hand, twice, in either order; only who is installed."""
        training, found = self.training(ONE, "full"), []
        case = f"full, 1B, {training.workload.pairs} pairs a step"
        for loss in ("BNF", "DPO"):
            found.append(self.variant(case, f"ours, {loss}", replace(training, loss=loss)))
        theirs = {"TRL DPOTrainer": {}, "TRL DPOTrainer with Liger": {"use_liger_kernel": True}}
        for name, settings in theirs.items():
            if find_spec("trl") and (not settings or find_spec("liger_kernel")):
                arguments = {"training": training, "settings": settings}
                found.append(Variant(SUITE, case, name, peers.trl_on_gpu, arguments, alone=True))
        if find_spec("unsloth"):
            found.append(Variant(SUITE, case, "Unsloth", peers.unsloth, {"training": training}, alone=True))
        again = [
            Variant(SUITE, f"{case}, again", one.name, one.contest, one.arguments, alone=True) for one in found[::-1]
        ]
        return [found, again]
