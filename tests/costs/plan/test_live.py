"""Bytes of tensors, counted as they come and go."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lightning_bnf.costs.plan.live import LiveBytes, storage_bytes


def test_peak_and_rest_are_counted_by_hand() -> None:
    """100 floats are 400 bytes; a and b and their sum are there at once, then only the sum; a view is none."""
    live = LiveBytes()
    with live:
        a, b = torch.ones(100), torch.ones(100)
        c = a + b
        view = c[:10]
        assert (live.now, live.peak) == (1200, 1200)
        del a, b
        assert (live.now, live.peak) == (400, 1200)
        c.mul_(2)
        del c
        assert live.now == 400, "the view holds the storage"
        del view
    assert (live.now, live.peak) == (0, 1200)


def test_tensors_from_before_count_when_told_of() -> None:
    live, weight = LiveBytes(), torch.ones(10)
    live.hold([weight, weight.view(2, 5)])
    live.restart()
    with live:
        weight.add_(1)
        (weight * 2).sum()
    assert (live.now, live.peak) == (40, 84), "the product's 40 bytes and the sum's 4"


def test_fake_tensors_count_alike() -> None:
    peaks = []
    for mode in (LiveBytes(), FakeTensorMode()):
        live = mode if isinstance(mode, LiveBytes) else LiveBytes()
        with mode:
            w = torch.randn(8, 8, requires_grad=True)
            with live if live is not mode else torch.enable_grad():
                (torch.randn(4, 8) @ w).relu().sum().backward()
        peaks.append(live.peak - (256 if live is mode else 0))  # the weight was made inside only there
    assert peaks[0] == peaks[1]


def test_storages_count_once() -> None:
    a = torch.ones(10)
    assert storage_bytes([a, a[:2], torch.ones(3)]) == 52
