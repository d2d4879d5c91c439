"""The reference: a provider of one number for each completion token."""

import copy
from abc import ABC, abstractmethod
from typing import Any, Literal

from torch import Tensor, nn

from lightning_bnf.batch import MicroBatch
from lightning_bnf.policies.base import Policy, PolicyError, evaluating
from lightning_bnf.policies.lora import LoRAPolicy

ReferenceKind = Literal["auto", "adapter_off", "copy", "none"]


class Reference(nn.Module, ABC):
    """Gives the reference's token log-probs (N,) of a micro-batch, without gradients and without dropout."""

    @abstractmethod
    def forward(self, batch: MicroBatch) -> Tensor: ...

    def state_dict(self, *args: Any, destination: Any = None, **kwargs: Any) -> Any:
        """Nothing: a reference is loaded, never restored."""
        return {} if destination is None else destination


class AdapterOff(Reference):
    """The policy with its adapters switched off: no second model."""

    def __init__(self, policy: LoRAPolicy):
        super().__init__()
        self._policy = (policy,)  # in a tuple, so that the policy's weights are not counted twice

    def forward(self, batch: MicroBatch) -> Tensor:
        (policy,) = self._policy
        with evaluating(policy), policy.adapted.disable_adapter():
            return policy(batch).token_logps


class FrozenCopy(Reference):
    """A frozen copy of the policy as it was loaded."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.policy = copy.deepcopy(policy).requires_grad_(False).eval()

    def forward(self, batch: MicroBatch) -> Tensor:
        with evaluating(self.policy):
            return self.policy(batch).token_logps


def check_reference(kind: ReferenceKind, policy: Policy, needed: bool) -> str:
    """What `kind` comes to for this policy; raises `PolicyError` for what contradicts, before anything is loaded."""
    if kind == "none" and needed:
        raise PolicyError("reference 'none': the loss needs a reference; accepted are auto, adapter_off and copy")
    if kind == "adapter_off" and not isinstance(policy, LoRAPolicy):
        raise PolicyError(
            f"reference 'adapter_off': {type(policy).__name__} has no adapters; accepted are auto and copy"
        )
    if not needed:
        return "none"
    return policy.default_reference if kind == "auto" else kind


def build_reference(kind: str, policy: Policy) -> Reference | None:
    """The provider that `check_reference` named, for a loaded policy."""
    if kind == "none":
        return None
    return AdapterOff(policy) if isinstance(policy, LoRAPolicy) and kind == "adapter_off" else FrozenCopy(policy)
