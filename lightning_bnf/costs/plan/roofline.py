"""The time of a step from what each of its operations computes and moves: a roofline, operation by operation.

An operation takes as long as its products do, or as moving its tensors does, whichever is longer. What a device reaches
of its peaks is assumed: see `gpus`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lightning_bnf.costs.plan.depth import Depths
from lightning_bnf.costs.plan.gpus import Speed
from lightning_bnf.policies.head import choose
from lightning_bnf.policies.head.softmax import Logits, TileSoftmax

PICKING = ("embedding", "index", "index_select", "gather", "index_add_", "index_put_", "scatter_", "scatter_add_")
"""Operations that move what they pick of a table, not the table."""

WRITING = ("copy_", "fill_", "zero_")
"""Operations that do not read what they write over."""


class Work(NamedTuple):
    """What an operation does: its kind (products, attention, head, or memory where it multiplies no matrices), its
    floating-point operations, and the bytes that it reads and writes."""

    kind: str
    flops: int
    bytes: int


class CountOperations(TorchDispatchMode):
    """Inside it, `done` counts the operations, on fake tensors too; views are none. `formulas`: how torch's counter is
    told of operations that it does not know."""

    def __init__(self, formulas: dict[Any, Any]):
        super().__init__()
        self.done: Counter[Work] = Counter()
        self._formulas = FlopCounterMode(display=False, custom_mapping=formulas).flop_registry
        self._paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if not self._paused and not _is_free(func):
            formula = self._formulas.get(func.overloadpacket)
            flops = 0 if formula is None else int(formula(*args, **kwargs, out_val=made))
            self.done[Work(_kind(func, flops), flops, _moved(func, args, kwargs, made))] += 1
        return made

    @contextmanager
    def softmax_is_a_kernel(self) -> Iterator[None]:
        """Inside, the softmax of a tile counts as what the head's kernel moves: logits read twice, and where a gradient
        follows written once in 16 bits."""
        plain = choose.softmax_in_blocks

        def counted(logits: Logits, gradient: bool, entropy: Tensor | None) -> TileSoftmax:
            self._paused = True
            try:
                found = plain(logits, gradient, entropy)
            finally:
                self._paused = False
            count = logits.products.numel()
            self.done[Work("head", 0, 2 * logits.products.nbytes + (2 * count if gradient else 0))] += 1
            return found

        choose.softmax_in_blocks = counted
        try:
            yield
        finally:
            choose.softmax_in_blocks = plain


def _is_free(func: Any) -> bool:
    """Whether nothing is computed or moved: questions, views, and memory that is only taken."""
    name = func.overloadpacket.__name__
    views = any(out.alias_info is not None and not out.alias_info.is_write for out in func._schema.returns)
    return views or func.namespace == "prim" or name.startswith(("_unsafe_view", "empty", "new_empty", "detach"))


def _kind(func: Any, flops: int) -> str:
    if "scaled_dot_product" in str(func) or "varlen_attn" in str(func):
        return "attention"
    if "dtype" in func._overloadname:  # sums that are wider than their factors: of the head alone
        return "head"
    return "products" if flops else "memory"


def _moved(func: Any, args: Any, kwargs: Any, made: Any) -> int:
    written = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
    read = [leaf for leaf in tree_leaves((args, {k: v for k, v in kwargs.items() if k != "out"})) if _is_tensor(leaf)]
    name = func.overloadpacket.__name__
    if name in PICKING:
        picked = read[1:] if name.endswith("_") else written
        return 2 * sum(map(_size, picked))
    if name in WRITING:
        read = read[1:]
    return sum(map(_size, [*read, *written]))


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@dataclass(frozen=True)
class StepFlops:
    """Floating-point operations on the micro-batch: of forward and backward pass, and of a forward pass alone."""

    both: int
    forward: int


@dataclass(frozen=True)
class StepWork:
    """The operations on a micro-batch: of forward and backward pass, and of a forward pass alone. Where `depths` are
    given, those of two shallow models that stand for a deeper one."""

    both: tuple[Counter[Work], ...]
    forward: tuple[Counter[Work], ...]
    depths: Depths | None = None

    @property
    def flops(self) -> StepFlops:
        """How many are computed."""
        return StepFlops(self._whole(_flops, self.both), self._whole(_flops, self.forward))

    def seconds(self, speed: Speed, forward: bool = False) -> dict[str, float]:
        """By kind, on one device; of a forward pass alone, or of both."""
        found = self.forward if forward else self.both
        return {kind: self._whole(partial(_seconds, kind=kind, speed=speed), found) for kind in _kinds(found)}

    def _whole(self, of: Callable[[Counter[Work]], Any], found: tuple[Counter[Work], ...]) -> Any:
        values = [of(done) for done in found]
        return values[0] if self.depths is None else self.depths.line(*values)


def _flops(done: Counter[Work]) -> int:
    return sum(work.flops * count for work, count in done.items())


def _seconds(done: Counter[Work], kind: str, speed: Speed) -> float:
    return sum(speed.seconds(*work) * count for work, count in done.items() if work.kind == kind)


def _kinds(found: tuple[Counter[Work], ...]) -> list[str]:
    return sorted({work.kind for done in found for work in done})
