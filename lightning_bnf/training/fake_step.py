"""What an optimizer keeps and takes, whatever its class: from its steps on fake tensors, which hold no values."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_bnf.policies.base import Policy
from lightning_bnf.runtime.distributed import local
from lightning_bnf.training.optimization import Optimization, OptimizerFactory, build_optimizer, parameter_groups


class _ValuesAreHalf(TorchDispatchMode):
    """Some optimizers ask for a number, such as a parameter's norm, which a fake tensor does not have: it is 0.5, as
    they divide by it (Adafactor) and by what it lacks to 1 (NAdam)."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0.5
        return func(*args, **(kwargs or {}))


class FakeOptimizer:
    """A policy's optimizer on fake tensors of the shapes of what this rank trains, after its first step.

    Its tensors lie on the CPU: the state has the same sizes everywhere.
    """

    def __init__(self, policy: Policy, optimization: Optimization, factory: OptimizerFactory | None = None):
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)  # bitsandbytes brings tables of its own, with values
        groups = parameter_groups(policy)
        with self._mode:
            for group in groups:
                group["params"] = [_twin(local(parameter)) for parameter in group["params"]]
        self.parameters: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        self.optimizer = build_optimizer(groups, optimization, factory)
        self.step()

    def step(self, watch: AbstractContextManager[Any] | None = None) -> None:
        """Another step, with `watch` entered around it so that it sees the operations."""
        with self._mode, _ValuesAreHalf(), watch or nullcontext(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nothing is paged on a CPU, and no learning rate scheduled before
            self.optimizer.step()

    @property
    def state(self) -> list[Tensor]:
        """The tensors that are kept from step to step."""
        return [value for kept in self.optimizer.state.values() for value in kept.values() if isinstance(value, Tensor)]

    @property
    def state_bytes(self) -> int:
        """Bytes of `state`; what several parameters share counts once."""
        return sum({id(value.untyped_storage()): value.untyped_storage().nbytes() for value in self.state}.values())


def _twin(parameter: Tensor) -> nn.Parameter:
    twin = nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype))
    twin.grad = torch.empty_like(twin)
    return twin
