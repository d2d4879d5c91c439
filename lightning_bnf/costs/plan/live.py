"""The bytes of all tensors that are alive, and the most there were: counted as they come and go."""

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside it, `now` and `peak` are the bytes of the storages that operations have made and that are still held.

    A storage counts once, however many tensors look at it. Works on fake tensors too; what a kernel
    takes and gives back within one operation is not seen. Tensors made before are counted where `hold` is told of them.
    `gradients` is for the caller to set; `gradients_at_peak` is what it was then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.gradients = self.gradients_at_peak = 0
        self._seen: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.hold(leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor))
        return made

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count some tensors from now on, those that are not counted yet."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = id(storage), storage.nbytes()
            if key not in self._seen:
                self._seen[key] = weakref.ref(storage, partial(self._drop, key, size))
                self.now += size
        if self.now > self.peak:
            self.peak, self.gradients_at_peak = self.now, self.gradients

    def restart(self) -> None:
        """The peak begins anew."""
        self.peak, self.gradients_at_peak = self.now, self.gradients

    def _drop(self, key: int, size: int, _: weakref.ref) -> None:
        del self._seen[key]
        self.now -= size


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors' storages, each counted once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({id(storage): storage.nbytes() for storage in storages}.values())
