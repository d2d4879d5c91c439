"""What stays in memory from step to step: weights, gradients, the optimizer's moments."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_bnf.costs.plan.live import LiveBytes, storage_bytes
from lightning_bnf.policies.base import Policy
from lightning_bnf.policies.reference.providers import Reference
from lightning_bnf.policies.sharding import decoder_layers
from lightning_bnf.training.optimization import Optimization

SMALLEST_8BIT, BLOCK_8BIT = 4096, 256  # elements: bitsandbytes' own numbers


@dataclass(frozen=True)
class Held:
    """Bytes of one device that holds everything; a sharded run shares them out.

    weights: of the policy and its buffers but what is trained beside a frozen base, by dtype; adapters: that;
    reference: of a frozen copy; gradients, moments: of what is trained; gathered: of what a sharded run gathers at once
    beside its share. parameters, trained: numbers of them.
    """

    weights: dict[str, int]
    adapters: int
    reference: int
    gradients: int
    moments: int
    gathered: int
    parameters: int
    trained: int

    @property
    def standing(self) -> int:
        """Weights and reference, which are there all the time."""
        return sum(self.weights.values()) + self.adapters + self.reference


def held(
    policy: Policy,
    reference: Reference | None,
    optimization: Optimization,
    sharded: bool = False,
    mixed: bool = False,
) -> Held:
    """Of a policy with or without contents; `sharded` layer by layer, with `mixed` gathered in bfloat16."""
    trained = list(policy.trainable().values())
    own = {id(parameter) for parameter in trained}
    some_frozen = any(id(parameter) not in own for parameter in policy.parameters())
    weights: dict[str, int] = {}
    for tensor in _tensors(policy):
        if not (some_frozen and id(tensor) in own):
            stored = policy.stored(tensor)
            weights[stored.kind] = weights.get(stored.kind, 0) + stored.bytes
    size = storage_bytes(trained)
    return Held(
        weights=weights,
        adapters=size if some_frozen else 0,
        reference=sum(copy.stored(tensor).bytes for copy in _policies(reference) for tensor in _tensors(copy)),
        gradients=size,
        moments=sum(moment_bytes(parameter, optimization) for parameter in trained),
        gathered=_gathered(policy, mixed) if sharded else 0,
        parameters=sum(parameter.numel() for parameter in policy.parameters()),
        trained=sum(parameter.numel() for parameter in trained),
    )


def _gathered(policy: Policy, mixed: bool) -> int:
    """What lies outside the decoder layers, and two layers: one that is computed, and the next that is fetched. Of all
    of these the weights, and the gradients of those that are trained until they are reduced."""
    layers = [list(layer.parameters()) for layer in decoder_layers(policy)]
    inside = {id(parameter) for layer in layers for parameter in layer}
    outside = [parameter for parameter in policy.parameters() if id(parameter) not in inside]

    def whole(parameters: list[nn.Parameter]) -> int:
        weights = sum(p.numel() * (2 if mixed else p.element_size()) for p in parameters)
        return weights + sum(p.numel() * (4 if mixed else p.element_size()) for p in parameters if p.requires_grad)

    return whole(outside) + 2 * max(map(whole, layers))


def _tensors(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once."""
    return [*module.parameters(), *module.buffers()]


def _policies(reference: Reference | None) -> list[Policy]:
    return [] if reference is None else [module for module in reference.modules() if isinstance(module, Policy)]


def moment_bytes(parameter: nn.Parameter, optimization: Optimization) -> int:
    """AdamW's two moments: as the parameter, or in 8 bits, of which bitsandbytes keeps small tensors in 32."""
    if not optimization.paged_8bit:
        return 2 * parameter.nbytes
    if parameter.numel() < SMALLEST_8BIT:
        return 8 * parameter.numel()
    return 2 * parameter.numel() + 8 * -(-parameter.numel() // BLOCK_8BIT)  # with a float32 scale for each block


def stepping_bytes(parameters: list[nn.Parameter], optimization: Optimization) -> int:
    """What AdamW takes for a moment at its largest parameter, measured on a small one that takes a step."""
    if optimization.paged_8bit:
        return 0
    weight = nn.Parameter(torch.zeros(256, 256))
    optimizer = optimization.optimizer([weight])
    weight.grad = torch.zeros_like(weight)
    optimizer.step()  # makes the moments
    live = LiveBytes()
    live.hold([weight, weight.grad, *optimizer.state[weight].values()])
    before = live.now
    with live:
        optimizer.step()
    return round((live.peak - before) / weight.nbytes * max(parameter.nbytes for parameter in parameters))
