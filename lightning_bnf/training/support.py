"""What goes with what: policies, references, precisions and strategies."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_bnf.policies import POLICIES
from lightning_bnf.policies.attention import is_flash
from lightning_bnf.policies.base import Policy, PolicyError
from lightning_bnf.policies.reference.build import reference_refusal
from lightning_bnf.results.markdown import markdown_table
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.runtime.slowness import slow_products
from lightning_bnf.training.strategies import Parallelism, parallelism_of

REFERENCES = ("adapter_off", "copy", "cache", "none")
PARALLELISMS: tuple[Parallelism, ...] = ("one device", "ddp", "fsdp2")
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed")


@dataclass(frozen=True)
class Combination:
    """What a run combines. policy: its class, whose declarations are asked; reference: as `check_reference` resolves
    it; device: cpu or cuda; attention: transformers' name of it, None where it chooses; dtype: of the weights."""

    policy: type[Policy]
    parallelism: Parallelism
    reference: str
    precision: str
    device: str
    attention: str | None = None
    dtype: str | None = None

    @classmethod
    def of(cls, policy: Policy, reference: str, trainer: Trainer) -> "Combination":
        """That of a run. reference: as above."""
        strategy, precision, dtype = trainer.strategy, str(trainer.precision), str(policy.dtype).removeprefix("torch.")
        parallel, device = parallelism_of(strategy), strategy.root_device.type
        return cls(type(policy), parallel, reference, precision, device, policy.attention, dtype)

    def refusal(self) -> str | None:
        """Why this does not go together, as a sentence that says what is accepted; None where it does."""
        policy, needed = self.policy.__name__, self.policy.needs_device
        if needed is not None and self.device != needed:
            return f"accelerator must be {needed} with {policy}, got {self.device}"
        if self.parallelism == "fsdp2" and not self.policy.shardable:
            return f"strategy must be auto or ddp with {policy}, whose weights cannot be sharded, got fsdp2"
        on_gpus_alone = self.attention is not None and (is_flash(self.attention) or self.attention == "flex_attention")
        if on_gpus_alone and self.device == "cpu":
            return f"attention must be sdpa or eager on a CPU, got {self.attention}"
        if self.dtype == "float16":
            return "dtype must be float32 or bfloat16, got float16, whose gradients would have to be scaled"
        halves = (self.dtype or "float32") != "float32" or self.precision.startswith("bf16")
        if self.attention is not None and is_flash(self.attention) and not halves:
            return (
                f"precision must be bf16-mixed or bf16-true, or dtype bfloat16, with attention {self.attention}, whose "
                f"kernels take halves alone, got {self.precision} and float32"
            )
        return precision_refusal(self.precision) or reference_refusal(self.reference, self.policy)

    def check(self) -> None:
        """Raises `Refusal` for what does not go together. Warns of `slow_products`."""
        if refusal := self.refusal():
            raise Refusal(refusal)
        if told := slow_products(self.device, self.dtype, self.precision):
            rank_zero_warn(told)


def check_trainer(trainer: Trainer) -> None:
    """Raises `Refusal` for what manual optimization cannot take, before Lightning does and with what to set instead."""
    if trainer.gradient_clip_val is not None:
        raise Refusal(
            f"gradient_clip_val must be null, got {trainer.gradient_clip_val}: set optimization.max_grad_norm instead, "
            "which clips the gradient of the whole step"
        )
    if trainer.accumulate_grad_batches != 1:
        raise Refusal(
            f"accumulate_grad_batches must be 1, got {trainer.accumulate_grad_batches}: set data.examples_per_step "
            "(rows of an optimizer step) and data.max_tokens (budget of a micro-batch) instead"
        )


def check_untrained(policy: Policy, own: bool = False) -> None:
    """Raises `PolicyError` for a policy that a run has trained: another would begin at what that has left. Warns where
    it is the module's `own`."""
    if policy.trained and own:
        rank_zero_warn(
            "this module was trained by a fit before: it goes on from there with a new optimizer and schedule, against "
            "the reference that it began at; make a new policy and module to begin at the source again"
        )
    elif policy.trained:
        kind, argument = type(policy).__name__, "adapter" if policy.adapters else "source"
        raise PolicyError(
            f"policy must be one that no run has trained, got a {kind} that one has: make a new {kind}(...) to begin "
            f"at the source again, or one with that run's policy/ folder as its {argument} to go on from there"
        )


def precision_refusal(precision: str) -> str | None:
    """Why nothing is trained in this precision, as a sentence; None where it is."""
    if precision not in ("16-mixed", "16-true", "16"):
        return None
    return (
        f"precision must be 32-true, bf16-mixed or bf16-true, got {precision}: float16 needs its gradients scaled, and "
        "what is clipped here is the gradient of the whole step"
    )


def support_table(policies: Sequence[type[Policy]] = POLICIES) -> str:
    """Markdown: which policies, references and precisions go with which strategy, by the rules that refuse."""
    reasons: list[str] = []

    def row(title: str, policy: type[Policy], reference: str, precision: str) -> list[str]:
        cells = []
        for parallelism in PARALLELISMS:
            refusal = Combination(policy, parallelism, reference, precision, "cuda").refusal()
            if refusal and refusal not in reasons:
                reasons.append(refusal)
            cells.append(f"no ({reasons.index(refusal) + 1})" if refusal else "yes")
        return [title, *cells]

    rows = [row(f"{kind.__name__}, {how}", kind, how, PRECISIONS[0]) for kind in policies for how in REFERENCES]
    rows += [row(f"any, any, {precision}", POLICIES[0], "none", precision) for precision in PRECISIONS]
    table = markdown_table(("policy, reference, precision", *PARALLELISMS), *rows)
    return "\n".join([table, "", *(f"({i + 1}) {reason}  " for i, reason in enumerate(reasons))])
