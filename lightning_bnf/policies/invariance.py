"""What would make a sequence's log-probs depend on chance or on its neighbours in a batch, taken out of a loaded model.

Nothing here knows an architecture: fields and modules are found by what they are. What stays is found by the probes.
"""

from collections.abc import Iterable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

LENGTH_DEPENDENT = ("dynamic", "longrope")
"""RoPE scalings whose frequencies follow from the longest row that the model is given."""


def switch_off_dropout(model: nn.Module) -> None:
    """Set dropout to 0, also the rates of modules that must be in training mode: see `train_quietly`.

    Other rates stay as they are: what is called jitter may be a threshold in evaluation too.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "gradient_checkpointing"):
            for name, value in vars(module).items():
                if isinstance(value, float) and "drop" in name:
                    setattr(module, name, 0.0)


def train_quietly(base: Iterable[nn.Module]) -> None:
    """Keep the modules of the base model in evaluation mode while the policy trains.

    Training mode is where models draw: rates of dropout that a forward pass reads off the config, experts that are
    sampled. Gradients flow in either mode. Modules that recompute their activations do so in training mode alone.
    """
    for module in base:
        module.training = bool(getattr(module, "gradient_checkpointing", False))


def rotate_row_by_row(model: nn.Module) -> bool:
    """Let each row's own length choose the frequencies of RoPE scalings that depend on length, not the batch's longest.

    Returns whether there are any. Then the model must be told the position ids: it would take those of the longest row
    for all.
    """
    rotary = [module for module in model.modules() if _depends_on_length(module)]
    for module in rotary:
        module.forward = MethodType(_row_by_row, module)  # a method, so that a copy of the model calls its own
    return bool(rotary)


def rotated_alike(model: nn.Module, shortest: int, longest: int) -> bool:
    """Whether sequences of so many tokens, and so all between, get the same frequencies from `rotate_row_by_row`.

    Where they do not, what sequences have in common cannot be computed once, nor can they lie in one row: the row's own
    length would choose for all of them.
    """
    x = torch.zeros(1, 1, 1, device=next(model.parameters()).device)
    for module in model.modules():
        for kind in _kinds(module) if _depends_on_length(module) else ():
            first, second = (
                _row_by_row(module, x, torch.tensor([[0, 1, length - 1]], device=x.device), *kind)
                for length in (max(shortest, 2), max(longest, 2))
            )
            pairs = [(first, second)] if isinstance(first, Tensor) else zip(first, second)
            if not all(torch.equal(one[:, :2], other[:, :2]) for one, other in pairs):
                return False
    return True


def _depends_on_length(module: nn.Module) -> bool:
    kinds = getattr(module, "rope_type", None)
    names = kinds.values() if isinstance(kinds, dict) else [kinds]
    return any(kind in name for name in names if isinstance(name, str) for kind in LENGTH_DEPENDENT)


def _kinds(module: nn.Module) -> list[tuple[str, ...]]:
    """Further arguments that a rotary module is called with: the kind of layer, where they have different ones."""
    kinds = getattr(module, "rope_type", None)
    return [(kind,) for kind in kinds] if isinstance(kinds, dict) else [()]


def _row_by_row(module: nn.Module, x: Tensor, position_ids: Tensor, *args: Any, **named: Any) -> Any:
    """position_ids (B, T) -> what the module gives for each row alone, such as cosines and sines (B, T, D)."""
    parts = []
    for row in position_ids.split(1):
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            setattr(module, name, 0)  # else frequencies of a longer row before it are taken
        parts.append(type(module).forward(module, x[:1], row, *args, **named))
    return torch.cat(parts) if isinstance(parts[0], Tensor) else tuple(map(torch.cat, zip(*parts)))
