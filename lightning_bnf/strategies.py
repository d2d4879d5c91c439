"""How a run is spread over devices: FSDP2 with checkpoints that are whole or not there, and what goes with what."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.strategies import (
    DDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
    StrategyRegistry,
)

from lightning_bnf.policies.attention import is_flash

Spread = Literal["one device", "ddp", "fsdp2"]


class FullySharded(ModelParallelStrategy):
    """FSDP2 over all devices of the run (`strategy: fsdp2`): weights, gradients and moments are shared out.

    Lightning's ModelParallelStrategy with one mesh of all ranks, and checkpoints that take their name only when every
    rank has written its part.
    """

    def setup_environment(self) -> None:
        """One dimension of the mesh, of all ranks: Lightning's own default shards within a node only, and by tensor."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """A folder with a file of every rank, written under another name and renamed."""
        target = Path(self.broadcast(filepath))
        unfinished = target.with_name(f".{target.name}.unfinished")
        if self.is_global_zero:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.barrier()
        super().save_checkpoint(checkpoint, unfinished, storage_options)
        self.barrier()
        if self.is_global_zero:
            shutil.rmtree(target, ignore_errors=True)
            os.replace(unfinished, target)
        self.barrier()


StrategyRegistry.register("fsdp2", FullySharded, description="FSDP2 over all devices", override=True)


def spread_of(strategy: Strategy) -> Spread:
    """What a Trainer's strategy comes to; raises ValueError for those that no test shows the results of."""
    if isinstance(strategy, FullySharded):
        return "fsdp2"
    if type(strategy) is DDPStrategy:
        return "ddp"
    if isinstance(strategy, SingleDeviceStrategy):
        return "one device"
    raise ValueError(f"strategy {type(strategy).__name__}: accepted are auto, ddp and fsdp2")


def refuse_sharded(strategy: Strategy, what: str) -> None:
    """Raises ValueError under FSDP2, for what generates: one process draws the completions."""
    if spread_of(strategy) == "fsdp2":
        raise ValueError(f"{what}: one process generates, and none has all weights; accepted: ddp, one device")


@dataclass(frozen=True)
class Combination:
    """What a run combines. policy: full, lora or qlora (`Policy.kind`); reference: as `check_reference` resolves it;
    device: cpu or cuda; attention: transformers' name of it, None where it chooses."""

    policy: str
    spread: Spread
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
        if self.spread == "fsdp2" and self.policy == "qlora":
            return "strategy fsdp2 with 4-bit weights, which cannot be sharded: accepted is ddp, each device with all"
        on_gpus_alone = self.attention is not None and (is_flash(self.attention) or self.attention == "flex_attention")
        if on_gpus_alone and self.device == "cpu":
            return f"attention {self.attention!r} on a CPU, for which it is not made: accepted are sdpa and eager"
        if self.reference == "adapter_off" and self.policy == "full":
            return "reference 'adapter_off': a full policy has no adapters; accepted are auto, copy and cache"
        return None


POLICIES, REFERENCES = ("full", "lora", "qlora"), ("adapter_off", "copy", "cache", "none")
SPREADS: tuple[Spread, ...] = ("one device", "ddp", "fsdp2")
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed")


def support_table() -> str:
    """Markdown: which policies, references and precisions go with which strategy, by the rules that refuse."""
    lines = ["| policy, reference, precision | " + " | ".join(SPREADS) + " |", "|---|" + "---|" * len(SPREADS)]
    reasons: list[str] = []

    def line(title: str, policy: str, reference: str, precision: str) -> str:
        cells = []
        for spread in SPREADS:
            refusal = Combination(policy, spread, reference, precision, "cuda").refusal()
            if refusal and refusal not in reasons:
                reasons.append(refusal)
            cells.append(f"no ({reasons.index(refusal) + 1})" if refusal else "yes")
        return f"| {title} | " + " | ".join(cells) + " |"

    lines += [line(f"{policy}, {how}", policy, how, PRECISIONS[0]) for policy in POLICIES for how in REFERENCES]
    lines += [line(f"any, any, {precision}", "lora", "none", precision) for precision in PRECISIONS]
    return "\n".join([*lines, "", *(f"({i + 1}) {reason}  " for i, reason in enumerate(reasons))])
