"""Which softmax a tile takes: the kernel only where it gives what torch gives."""

from types import ModuleType
from typing import Any

import pytest
import torch
from support.kernels import DEVICE, logits

from lightning_bnf.policies.head.choose import kernel_is_right, tile_softmax


@pytest.mark.slow
def test_it_is_compared_before_it_is_used(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel_is_right(DEVICE)
    right = kernels.softmax_fused

    def wrong(*args: Any, **kwargs: Any) -> Any:
        found = right(*args, **kwargs)
        return found._replace(total=found.total * 1.01)

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("Failed to find C compiler\nmore")

    for bad, sentence in ((wrong, "Tensor-likes are not close"), (broken, "Failed to find C compiler")):
        kernel_is_right.cache_clear()
        monkeypatch.setattr(kernels, "softmax_fused", bad)
        with pytest.warns(RuntimeWarning, match=f"^the head's Triton kernel is not used on {DEVICE}: .*{sentence}.*$"):
            assert not kernel_is_right(DEVICE)


def test_a_cpu_and_float64_keep_to_torch(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "softmax_fused", None)
    given = logits(False, 1.0, None)
    found = tile_softmax(given._replace(products=given.products.double()), True, None, torch.float32)
    assert found.scores.dtype == torch.float64
