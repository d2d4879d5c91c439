"""What rounding trained weights to 16 bits leaves of what training changed."""

from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lightning_bnf.policies.base import Policy
from lightning_bnf.policies.skeleton import tensor_types
from lightning_bnf.policies.sources import SourceError, weight_files
from lightning_bnf.runtime.fingerprints import content_hash, fingerprint_part

FAITHFUL = 0.9
"""Cosine below which a rounded change is another one than was trained."""

AT_ONCE = 2**24  # numbers that are compared in float64


def rounding_of(policy: Policy, dtype: str, halves: bool = False) -> "Rounding | None":
    """What an export of a `dtype` rounds to: adapters and float32 not at all; under `auto` full weights to bfloat16,
    where that keeps what was learned. `halves`: of a checkpoint whose weights are of 16 bits, and whose masters in
    float32 are not at hand."""
    if dtype == "float32" or (dtype == "auto" and policy.adapters):
        return None
    if dtype == "auto":
        return Rounding(policy, torch.bfloat16, halves)
    return Rounding(policy, getattr(torch, dtype), halves, asked=True)


class Rounding:
    """The cosine between the change of all weights (trained minus start) and that of what is written for them.

    The start is read from the source's safetensors, a tensor at a time, and held against the fingerprint of the weights
    that the run began with: of a model that is not there any more, is a GGUF file or was changed after it was loaded
    nothing is said.
    """

    def __init__(self, policy: Policy, dtype: torch.dtype, halves: bool = False, asked: bool = False):
        """`dtype`: what is rounded to; `halves`: whether what is added has been rounded before, so that nothing is told
        of the change; `asked`: whether to round whatever that loses."""
        self.dtype, self.halves, self.certain = dtype, halves, asked or halves
        self._policy, self._parts = policy, list[list[Any]]()
        self._products = torch.zeros(3, dtype=torch.float64)  # change x written, change x change, written x written
        self._files, self._places, self._known = ExitStack(), dict[str, Any](), not halves
        try:
            for file in weight_files(policy.source, policy.revision):
                held = self._files.enter_context(safe_open(file, "pt"))
                self._places |= dict.fromkeys(held.keys(), held)
        except (SourceError, OSError):
            self._known = False

    @cached_property
    def _types(self) -> dict[str, torch.dtype]:
        return tensor_types(self._policy.causal_lm, self.dtype)

    def rounded(self, name: str, value: Tensor) -> Tensor:
        """What is written of a weight: in the type that transformers gives it when it loads the model in `dtype`, which
        for some mixtures' routers is float32."""
        return value.to(self._types.get(name, self.dtype))

    def add(self, name: str, like: Tensor, trained: Tensor, written: Tensor) -> None:
        """A weight: its name in the model, what the run holds of it (whose type it began in), what was trained, and
        what of it is written; whole tensors on the CPU but for `like`."""
        if not self._known or name not in self._places:
            self._known = False
            return
        start = self._places[name].get_tensor(name).to(self._policy.dtype)
        if start.shape != trained.shape:
            self._known = False
            return
        self._parts.append(fingerprint_part(name, start))
        start = start.to(like.dtype)
        for some, exact, rounded in zip(*(whole.flatten().split(AT_ONCE) for whole in (start, trained, written))):
            change, left = exact.double() - some.double(), rounded.double() - some.double()
            self._products += torch.stack([change @ left, change @ change, left @ left])

    def cosine(self) -> float | None:
        """Of all weights together, when all were added; None where the start is not known, or nothing has changed."""
        self._files.close()
        both, change, left = self._products.tolist()
        if not self._known or content_hash(self._parts) != self._policy.base_fingerprint or not change:
            return None
        return float(both / (change * left) ** 0.5) if left else 0.0

    def applies(self) -> bool:
        """Whether to round: where it was asked for, or is known to keep what was learned."""
        return self.certain or (self.cosine() or 0.0) >= FAITHFUL

    def text(self) -> str:
        """In words, for the card and the screen."""
        cosine, name = self.cosine(), str(self.dtype).removeprefix("torch.")
        if self.halves:
            return f"{name}, as the steps were made with; their float32 masters are what a run exports at its end"
        if not self.applies():
            why = (
                "the start is not at hand" if cosine is None else f"its cosine to the trained one would be {cosine:.3f}"
            )
            return f"float32: what {name} leaves of the change is {'not known' if cosine is None else 'little'}, {why}"
        if cosine is None:
            return f"rounded to {name}; what that leaves of the change is not known, as the start is not at hand"
        told = f"rounded to {name}: the change that is written has cosine {cosine:.3f} to the trained one"
        return told if cosine >= FAITHFUL else f"{told}: much of what was learned is lost, dtype float32 keeps it"
