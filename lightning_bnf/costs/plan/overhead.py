"""What a process takes of a device beside the tensors of a step."""

import torch

from lightning_bnf.costs.plan.estimate import Part
from lightning_bnf.costs.plan.run import Assessment
from lightning_bnf.runtime.memory import Unmeasurable, taken_bytes

CUDA_CONTEXT = 0.6e9  # bytes of the driver and its libraries; not measured
FRAGMENTATION = 0.75  # of what comes and goes in a step, as observed with glibc's malloc; not a law


def overhead_of(kind: str) -> Part:
    """What a process takes beside tensors: on a CPU this one is taken for it, which has read the same libraries."""
    if kind == "cuda":
        return Part("CUDA's own (taken as)", CUDA_CONTEXT)
    try:
        return Part("interpreter, libraries", taken_bytes(torch.device("cpu")))
    except Unmeasurable:
        return Part("interpreter, libraries (not measurable here)", 0.0)


def fragmentation_of(found: Assessment) -> Part:
    """What a CPU's allocator loses between activations and temporaries, as a rule of thumb."""
    passing = max(phase.beside for phase in found.cost.phases)
    share = FRAGMENTATION if found.run.devices.kind == "cpu" else 0.0
    return Part("allocator fragmentation (rule of thumb)", share * passing)


def expected_bytes(found: Assessment) -> float:
    """Bytes of a device under a run whose model is loaded in this process: on a CPU what it holds now, and what the
    step brings."""
    fragmentation = fragmentation_of(found).bytes
    if found.run.devices.kind == "cuda":
        return found.estimate.total + CUDA_CONTEXT
    try:
        return taken_bytes(torch.device("cpu")) + found.estimate.total - found.cost.model_state.standing + fragmentation
    except Unmeasurable:
        return found.estimate.total + fragmentation
