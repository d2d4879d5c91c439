"""Optimizers that torch has in two halves."""

from typing import Any

import torch


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
