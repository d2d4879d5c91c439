"""The load-balancing loss of a mixture of experts: what its routers chose, and what uneven choices cost.

Switch Transformer (Fedus et al. 2021, arXiv 2101.03961), equations 4 to 6, as transformers generalizes it to k experts
a token and pools the layers: of E experts and N tokens, each counted once for every layer with a router,

    L = E * sum_e f_e P_e

    f_e   how often expert e was chosen a token, without a gradient; sum_e f_e = k
    P_e   mean router probability of expert e

Even routing gives k. L is no mean over micro-batches: f and P are of all tokens together.
"""

import inspect
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_bnf.batch import MicroBatch
from lightning_bnf.runtime.distributed import several
from lightning_bnf.runtime.refusal import Refusal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ARGUMENTS = ["gate_logits", "num_experts", "top_k", "attention_mask"]
"""Of transformers' function of the loss above; architectures whose loss is another have other arguments."""

TOLERANCE = 0.05
"""Share of the model's own loss by which this one may differ: some compute it of halves, where experts tie."""


class Routing(NamedTuple):
    """Sums over tokens and layers. probability: (E,) of each expert, differentiable; chosen: (E,) how often it was
    among the k; tokens: () how many they were."""

    probability: Tensor
    chosen: Tensor
    tokens: Tensor


class Router(NamedTuple):
    """What a model's config says of its routers: experts a token goes to, and the weight of the load-balancing loss."""

    top_k: int
    weight: float

    def routing(self, logits: Sequence[Tensor], counted: Tensor) -> Routing:
        """logits: (T, E) of each layer with a router; counted: (T,) how often each token counts, 0 for padding."""
        wide = torch.promote_types(logits[0].dtype, torch.float32)
        weight = counted.to(wide)[:, None]
        probability = chosen = torch.zeros(logits[0].shape[-1], dtype=wide, device=counted.device)
        for layer in logits:
            of_layer = layer.flatten(0, -2).to(wide)
            places = of_layer.detach().topk(self.top_k).indices
            probability = probability + (of_layer.softmax(-1) * weight).sum(0)
            chosen = chosen + torch.zeros_like(of_layer).scatter_(-1, places, 1).mul_(weight).sum(0)
        return Routing(probability, chosen, weight.sum() * len(logits))


def router_of(model: "PreTrainedModel", body: object) -> Router | None:
    """What is known of the routers of a model, and of its body without the head, which records their logits; None where
    it has no load-balancing loss of this form."""
    loss = getattr(sys.modules[type(model).__module__], "load_balancing_loss_func", None)
    recorded = getattr(body, "_can_record_outputs", None) or {}
    top_k, weight = (getattr(model, name, None) for name in ("num_experts_per_tok", "router_aux_loss_coef"))
    if loss is None or list(inspect.signature(loss).parameters) != ARGUMENTS or "router_logits" not in recorded:
        return None
    return Router(top_k, float(weight or 0)) if isinstance(top_k, int) else None


def counted_tokens(batch: MicroBatch) -> Tensor:
    """(rows * T,) how many of the micro-batch's completions each token stands for: padding for none, the tokens of a
    prompt that completions share, and of what prompts have in common, for each of them, as though each had its own."""
    ids = batch.inputs["input_ids"]
    if not len(batch.length):  # a row that keeps ranks together
        return torch.zeros(ids.numel(), dtype=torch.long, device=ids.device)
    if batch.sequences is None:
        return batch.inputs["attention_mask"].flatten()
    counted = torch.zeros(ids.shape, dtype=torch.long)  # under bf16-true torch's own choice would round beyond 256
    for one in batch.sequences.documents:
        counted[one.row, one.start : one.start + one.prompt] = max(len(one.completions), 1)
        counted[one.row, one.start + one.prompt : one.stop] = 1
    if sharing := [one for one in batch.sequences.documents if one.common]:
        counted[sharing[0].row, : sharing[0].common] = sum(max(len(one.completions), 1) for one in sharing)
    return counted.flatten().to(ids.device)


def total(routings: Iterable[Routing]) -> Routing:
    """The sums over micro-batches, without a gradient."""
    return Routing(*(torch.stack([part.detach() for part in parts]).sum(0) for parts in zip(*routings)))


def over_ranks(routing: Routing) -> Routing:
    """The sums over all ranks, each of which calls it, without a gradient."""
    sums = torch.cat([part.detach().flatten() for part in routing])
    if several():
        dist.all_reduce(sums)
    experts = len(routing.chosen)
    return Routing(sums[:experts], sums[experts:-1], sums[-1])


def balancing_loss(part: Routing, whole: Routing) -> Tensor:
    """What a part of a step's tokens adds to the L of all of them, with the gradient of the part's probabilities."""
    share, mean = whole.chosen / whole.tokens, part.probability / whole.tokens
    return len(share) * (share * mean).sum()  # no product of vectors, which autocast would round


def check_balancing(own: Tensor, routing: Routing, source: str) -> None:
    """Compare the model's own load-balancing loss of some tokens with this one; raises `Refusal` where they differ."""
    mine = balancing_loss(routing, total([routing])).item()
    if routing.tokens.item() and not abs(mine - own.item()) <= TOLERANCE * abs(mine):
        raise Refusal(
            f"router_loss must be false with source {source!r}, whose own load-balancing loss is {own.item():.4g} "
            f"where that of Switch Transformer is {mine:.4g}, got true"
        )
