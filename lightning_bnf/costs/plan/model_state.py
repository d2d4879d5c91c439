"""What stays in memory from step to step: weights, gradients, the optimizer's state."""

from dataclasses import dataclass

from torch import Tensor, nn

from lightning_bnf.costs.plan.live import LiveBytes, storage_bytes
from lightning_bnf.policies.base import Policy
from lightning_bnf.policies.reference.providers import Reference
from lightning_bnf.policies.sharding import decoder_layers
from lightning_bnf.training.fake_step import FakeOptimizer


@dataclass(frozen=True)
class ModelState:
    """Bytes of one device that holds everything; a sharded run shares them out.

    weights: of the policy and its buffers but what is trained beside a frozen base, by dtype; adapters: that;
    reference: of a frozen copy; gradients: of what is trained; state: the optimizer's; gathered: of what a sharded run
    gathers at once beside its share. parameters, trained: numbers of them.
    """

    weights: dict[str, int]
    adapters: int
    reference: int
    gradients: int
    state: int
    gathered: int
    parameters: int
    trained: int

    @property
    def standing(self) -> int:
        """Weights and reference, which are there all the time."""
        return sum(self.weights.values()) + self.adapters + self.reference


def model_state(
    policy: Policy,
    reference: Reference | None,
    optimizer: FakeOptimizer,
    sharded: bool = False,
    mixed: bool = False,
) -> ModelState:
    """Of a policy, fake or not; `sharded` layer by layer, with `mixed` gathered in bfloat16."""
    trained = list(policy.trainable().values())
    own = {id(parameter) for parameter in trained}
    some_frozen = any(id(parameter) not in own for parameter in policy.parameters())
    weights: dict[str, int] = {}
    for tensor in _tensors(policy):
        if not (some_frozen and id(tensor) in own):
            stored = policy.stored(tensor)
            weights[stored.kind] = weights.get(stored.kind, 0) + stored.bytes
    size = storage_bytes(trained)
    return ModelState(
        weights=weights,
        adapters=size if some_frozen else 0,
        reference=sum(copy.stored(tensor).bytes for copy in _policies(reference) for tensor in _tensors(copy)),
        gradients=size,
        state=optimizer.state_bytes,
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
        weights = sum(min(p.numel() * (2 if mixed else p.element_size()), policy.stored(p).bytes) for p in parameters)
        return weights + sum(p.numel() * (4 if mixed else p.element_size()) for p in parameters if p.requires_grad)

    return whole(outside) + 2 * max(map(whole, layers))


def _tensors(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once."""
    return [*module.parameters(), *module.buffers()]


def _policies(reference: Reference | None) -> list[Policy]:
    return [] if reference is None else [module for module in reference.modules() if isinstance(module, Policy)]


def stepping_bytes(optimizer: FakeOptimizer) -> int:
    """What an optimizer takes beside its state for a moment of its step."""
    live = LiveBytes()
    live.hold([*optimizer.parameters, *(p.grad for p in optimizer.parameters if p.grad is not None), *optimizer.state])
    before = live.now
    optimizer.step(live)
    return live.peak - before
