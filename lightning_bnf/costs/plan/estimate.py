"""From the cost of a step to the memory of each device."""

from dataclasses import dataclass
from typing import NamedTuple

from lightning_bnf.costs.plan.step import Phase, StepCost
from lightning_bnf.training.strategies import Parallelism


@dataclass(frozen=True)
class Devices:
    """kind: cpu or cuda; parallelism: how the run lies over them; memory: bytes of each, None where it is not said."""

    kind: str
    count: int = 1
    parallelism: Parallelism = "one device"
    memory: float | None = None

    @property
    def sharded(self) -> bool:
        """Whether weights, gradients and moments are shared out."""
        return self.parallelism == "fsdp2" and self.count > 1


class Part(NamedTuple):
    """What takes so many bytes of a device."""

    name: str
    bytes: float


@dataclass(frozen=True)
class Estimate:
    """Bytes of one device at the moment of the step, `phase`, at which most is taken."""

    phase: str
    parts: tuple[Part, ...]

    @property
    def total(self) -> float:
        """Of all parts."""
        return sum(part.bytes for part in self.parts)


def estimate(cost: StepCost, devices: Devices) -> Estimate:
    """The phase that takes most, in its parts."""
    found = [Estimate(phase.name, _parts(cost, phase, devices)) for phase in cost.phases]
    return max(found, key=lambda one: one.total)


def _parts(cost: StepCost, phase: Phase, devices: Devices) -> tuple[Part, ...]:
    state = cost.model_state
    share = devices.count if devices.sharded else 1
    gradients = state.gradients if devices.sharded and phase.state else phase.gradients
    saved = min(cost.saved, phase.beside)
    parts = [Part(f"weights ({kind})", size / share) for kind, size in state.weights.items()]
    parts += [
        Part("adapters", state.adapters / share),
        Part("reference copy", state.reference / share),
        Part("gradients", gradients / share),
        Part("optimizer state", phase.state / share),
        Part("activations", saved),
        Part("head's tile, temporaries", phase.beside - saved),
    ]
    if devices.sharded:
        parts.append(Part("layers gathered at once", state.gathered))
    if devices.parallelism == "ddp" and devices.count > 1:
        parts.append(Part("DDP's buckets", state.gradients))
    return tuple(part for part in parts if part.bytes)
