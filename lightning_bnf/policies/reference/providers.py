"""The reference: a provider of one number for each completion token."""

import copy
from abc import ABC, abstractmethod
from typing import Any, Literal

from torch import Tensor, nn

from lightning_bnf.batch import MicroBatch
from lightning_bnf.policies.base import Policy, evaluating

ReferenceKind = Literal["auto", "adapter_off", "copy", "cache", "none"]


class Reference(nn.Module, ABC):
    """Gives the reference's token log-probs (N,) of a micro-batch, without gradients and without dropout."""

    @abstractmethod
    def forward(self, batch: MicroBatch) -> Tensor: ...

    def state_dict(self, *args: Any, destination: Any = None, **kwargs: Any) -> Any:
        """Nothing: a reference is loaded, never restored."""
        return {} if destination is None else destination


class AdapterOff(Reference):
    """The policy with its adapters off, or with the adapter that it started from, as it says: no second model."""

    def __init__(self, policy: Policy):
        super().__init__()
        self._policy = (policy,)  # in a tuple, so that the policy's weights are not counted twice

    def forward(self, batch: MicroBatch) -> Tensor:
        (policy,) = self._policy
        with evaluating(policy), policy.as_reference():
            return policy(batch).token_logps


class AsItIs(Reference):
    """The policy itself, which is its own reference as long as it has not been trained."""

    def __init__(self, policy: Policy):
        super().__init__()
        self._policy = (policy,)

    def forward(self, batch: MicroBatch) -> Tensor:
        with evaluating(self._policy[0]):
            return self._policy[0](batch).token_logps


class FrozenCopy(Reference):
    """A frozen copy of the policy as it was loaded."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.policy = copy.deepcopy(policy).requires_grad_(False).eval()

    def forward(self, batch: MicroBatch) -> Tensor:
        with evaluating(self.policy):
            return self.policy(batch).token_logps
