"""Optimizers that are made of others: torch's two halves of Muon, and any of them on float32 copies of the weights."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

ELEMENTWISE = (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD)  # each element is updated for itself
PIECE = 2**26  # elements whose gradients are widened together


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for the hidden layers' matrices, AdamW for embeddings, head, norms and biases.

    One object around torch's two, as `torch.optim.Muon` takes matrices alone: so there is one schedule, one checkpoint.
    Muon's updates are scaled to the root mean square of AdamW's (Liu et al. 2025, arXiv:2502.16982), so that one
    learning rate serves both halves.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ):
        """
        Args:
            params: Groups of tensors; those with `hidden` true, matrices all of them, are Muon's.
            lr: Learning rate of both halves (> 0).
            weight_decay: Decoupled weight decay (>= 0) of the groups that do not say it themselves.
            momentum: Muon's averaging coefficient of gradients (0 to below 1).
            nesterov: Whether Muon looks a step of its momentum ahead.
            ns_steps: Newton-Schulz iterations that make an update orthogonal (1 to 99).
            betas: AdamW's averaging coefficients (0 to below 1).
            eps: What keeps divisions by a norm (Muon) or a root (AdamW) from those by 0 (> 0).
        """
        groups = [dict(group, hidden=bool(group.get("hidden"))) for group in params]
        hidden, others = ([group for group in groups if group["hidden"] is side] for side in (True, False))
        self._halves: dict[bool, torch.optim.Optimizer] = {}
        if hidden:
            self._halves[True] = torch.optim.Muon(
                hidden, lr, weight_decay, momentum, nesterov, eps=eps, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw"
            )
        if others:
            self._halves[False] = torch.optim.AdamW(others, lr, betas, eps, weight_decay, fused=True)
        super().__init__([group for half in self._halves.values() for group in half.param_groups], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """A step of both halves. They look at this object's groups and state, which a loaded checkpoint replaces."""
        for hidden, half in self._halves.items():
            half.param_groups = [group for group in self.param_groups if group["hidden"] is hidden]
            half.state = self.state
            half.step()


class MasterWeights(torch.optim.Optimizer):
    """An optimizer on float32 copies of weights of 16 bits, to which these are rounded after each step.

    A learning rate of 1e-6 changes a weight of 0.02 by less than half of bfloat16's last place, so that the weights
    themselves would stay as they are. The copies are part of the state (`master`), so of checkpoints, and what the
    optimizer keeps is float32 too. Weights of 32 bits among the others are trained as they are.
    """

    def __init__(self, params: list[dict[str, Any]], build: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]):
        """
        Args:
            params: Groups of tensors.
            build: Makes the optimizer of such groups.
        """
        weights = chain.from_iterable(group["params"] for group in params)
        self._masters = {p: p.detach().float() for p in weights if is_half(p)}
        for master in self._masters.values():
            master.requires_grad_(True)
        self.inner = build([group | {"params": [*map(self.master, group["params"])]} for group in params])
        groups = zip(self.inner.param_groups, params)
        super().__init__([inner | {"params": group["params"]} for inner, group in groups], {})

    def master(self, weight: Tensor) -> Tensor:
        """What is trained of a weight: its float32 copy, or itself where it is as wide."""
        return self._masters.get(weight, weight)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """A step of the inner optimizer, which looks at this one's groups and state: those a checkpoint replaces."""
        for weight, master in self._masters.items():  # before the first step weights may have been loaded
            held = self.state[weight].get("master") if weight in self.state else weight
            if held is not master:
                master.copy_(held)
        self.inner.state = defaultdict(dict)
        for weight, kept in self.state.items():
            self.inner.state[self.master(weight)] = {name: one for name, one in kept.items() if name != "master"}
        for piece in self._pieces():
            self._step_on(piece)

    def _pieces(self) -> Iterator[list[dict[str, Any]]]:
        """The groups, or where that changes nothing their parts, as gradients are widened for a moment."""
        if type(self.inner) not in ELEMENTWISE:
            yield self.param_groups
            return
        for group in self.param_groups:
            piece: list[Tensor] = []
            for weight in group["params"]:
                piece.append(weight)
                if sum(one.numel() for one in piece) >= PIECE:
                    yield [group | {"params": piece}]
                    piece = []
            if piece:
                yield [group | {"params": piece}]

    def _step_on(self, groups: list[dict[str, Any]]) -> None:
        weights = [weight for group in groups for weight in group["params"]]
        halves = [(weight, self._masters[weight]) for weight in weights if weight in self._masters]
        for weight, master in halves:
            master.grad = None if weight.grad is None else weight.grad.to(master.dtype)
        self.inner.param_groups = [group | {"params": [*map(self.master, group["params"])]} for group in groups]
        self.inner.step()
        for weight, master in halves:
            weight.copy_(master)
            master.grad = None
        for weight in weights:
            master = self.master(weight)
            if kept := self.inner.state.get(master):
                self.state[weight] = dict(kept) if master is weight else dict(kept) | {"master": master}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """torch gives all that is kept the weights' own type, which would round the masters and the moments."""
        super().load_state_dict(dict(state_dict))
        held = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for name, weight in zip(held, chain.from_iterable(group["params"] for group in self.param_groups)):
            for key, value in state_dict["state"].get(name, {}).items():
                if isinstance(value, Tensor) and value.is_floating_point() and is_half(weight):
                    self.state[weight][key] = value.detach().to(self.state[weight][key].device, copy=True)


def is_half(tensor: Tensor) -> bool:
    """Whether a tensor's numbers are of 16 bits."""
    return tensor.dtype in (torch.bfloat16, torch.float16)


def trained_part(optimizer: torch.optim.Optimizer, weight: Tensor) -> Tensor:
    """What an optimizer changes of a weight: its master, or itself."""
    return optimizer.master(weight) if isinstance(optimizer, MasterWeights) else weight


def name_of(optimizer: torch.optim.Optimizer) -> str:
    """The class's name, and that there are masters: their state is another."""
    if isinstance(optimizer, MasterWeights):
        return f"{type(optimizer.inner).__name__} with float32 masters"
    return type(optimizer).__name__
