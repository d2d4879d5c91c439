"""What goes with what: policies, references, precisions and strategies."""

from dataclasses import dataclass

from lightning_bnf.policies.attention import is_flash
from lightning_bnf.training.strategies import Parallelism


@dataclass(frozen=True)
class Combination:
    """What a run combines. policy: full, lora or qlora (`Policy.kind`); reference: as `check_reference` resolves it;
    device: cpu or cuda; attention: transformers' name of it, None where it chooses."""

    policy: str
    parallelism: Parallelism
    reference: str
    precision: str
    device: str
    attention: str | None = None

    def refusal(self) -> str | None:
        """Why this does not go together, as a sentence that says what is accepted; None where it does."""
        if self.precision in ("16-mixed", "16-true", "16"):
            return (
                f"precision {self.precision}: accepted are 32-true, bf16-mixed and bf16-true; float16 needs its "
                "gradients scaled, and what is clipped here is the gradient of the whole step"
            )
        if self.parallelism == "fsdp2" and self.policy == "qlora":
            return "strategy fsdp2 with 4-bit weights, which cannot be sharded: accepted is ddp, each device with all"
        on_gpus_alone = self.attention is not None and (is_flash(self.attention) or self.attention == "flex_attention")
        if on_gpus_alone and self.device == "cpu":
            return f"attention {self.attention!r} on a CPU, for which it is not made: accepted are sdpa and eager"
        if self.reference == "adapter_off" and self.policy == "full":
            return "reference 'adapter_off': a full policy has no adapters; accepted are auto, copy and cache"
        return None


POLICIES, REFERENCES = ("full", "lora", "qlora"), ("adapter_off", "copy", "cache", "none")
PARALLELISMS: tuple[Parallelism, ...] = ("one device", "ddp", "fsdp2")
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed")


def support_table() -> str:
    """Markdown: which policies, references and precisions go with which strategy, by the rules that refuse."""
    lines = [
        "| policy, reference, precision | " + " | ".join(PARALLELISMS) + " |",
        "|---|" + "---|" * len(PARALLELISMS),
    ]
    reasons: list[str] = []

    def line(title: str, policy: str, reference: str, precision: str) -> str:
        cells = []
        for parallelism in PARALLELISMS:
            refusal = Combination(policy, parallelism, reference, precision, "cuda").refusal()
            if refusal and refusal not in reasons:
                reasons.append(refusal)
            cells.append(f"no ({reasons.index(refusal) + 1})" if refusal else "yes")
        return f"| {title} | " + " | ".join(cells) + " |"

    lines += [line(f"{policy}, {how}", policy, how, PRECISIONS[0]) for policy in POLICIES for how in REFERENCES]
    lines += [line(f"any, any, {precision}", "lora", "none", precision) for precision in PRECISIONS]
    return "\n".join([*lines, "", *(f"({i + 1}) {reason}  " for i, reason in enumerate(reasons))])
