"""Fixtures for the head."""

from collections.abc import Iterator
from types import ModuleType

import pytest

from lightning_bnf.policies.head.choose import kernel_is_right


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """In blocks of 16 logits, so that a row takes several and the last is not full."""
    pytest.importorskip("triton")
    from lightning_bnf.policies.head import triton_softmax as module

    monkeypatch.setattr(module, "BLOCK", 16)
    kernel_is_right.cache_clear()
    yield module
    kernel_is_right.cache_clear()
