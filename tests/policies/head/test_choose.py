"""Which softmax a tile takes: the kernel only where it gives what torch gives."""

from itertools import product
from types import ModuleType
from typing import Any

import pytest
import torch
from support.kernels import DEVICE, logits
from torch._subclasses.fake_tensor import FakeTensorMode

from lightning_bnf.policies.head import choose
from lightning_bnf.policies.head.choose import Variant, kernel_is_right, tile_softmax
from lightning_bnf.policies.head.softmax import Logits


@pytest.mark.slow
def test_it_is_compared_before_it_is_used(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for gradient, aligned in product((True, False), repeat=2):
        scores = torch.bfloat16 if aligned else torch.float32
        assert kernel_is_right(DEVICE, Variant(not aligned, aligned, gradient, not gradient, scores, aligned))
    right = kernels.softmax_fused

    def wrong(*args: Any, **kwargs: Any) -> Any:
        found = right(*args, **kwargs)
        return found._replace(total=found.total * 1.01)

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("Failed to find C compiler\nmore")

    for bad, sentence in ((wrong, "Tensor-likes are not close"), (broken, "Failed to find C compiler")):
        kernel_is_right.cache_clear()
        monkeypatch.setattr(kernels, "softmax_fused", bad)
        with pytest.warns(UserWarning, match=f"^the head's Triton kernel is not used on {DEVICE}: .*{sentence}.*$"):
            assert not kernel_is_right(DEVICE, Variant(False, False, True, False, torch.float32, True))


def test_a_cpu_and_float64_keep_to_torch(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "softmax_fused", None)
    given = logits(False, 1.0, None)
    found = tile_softmax(given._replace(products=given.products.double()), True, None, torch.float32)
    assert found.scores.dtype == torch.float64


def test_only_what_a_run_uses_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain head that is trained: one variant. A plan's tensors, which have no contents, try none."""
    asked: list[Variant] = []
    monkeypatch.setattr(choose, "kernel_is_right", lambda device, variant: bool(asked.append(variant)))
    with FakeTensorMode():
        products = torch.empty(4, 32, device=DEVICE)
        target = torch.zeros(4, dtype=torch.long, device=DEVICE)
        tile_softmax(Logits(products, target, None, 1.0, None), True, None, torch.bfloat16)
    assert not asked
    plain, odd = (logits(False, 1.0, None, vocabulary=size) for size in (32, 33))
    assert Variant.of(plain, True, False, torch.bfloat16) == (False, False, True, False, torch.bfloat16, True)
    assert not Variant.of(odd, True, False, torch.bfloat16).aligned
