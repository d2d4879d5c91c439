"""The table of GPUs: names as people type them and as CUDA prints them."""

import pytest

from lightning_bnf.costs.plan.gpus import GPUS, gpu_named, gpu_of_device
from lightning_bnf.runtime.refusal import Refusal


@pytest.mark.parametrize(("typed", "name"), [("RTX-4090", "rtx4090"), ("a100-80", "a100-80"), ("A100_40", "a100-40")])
def test_names_are_found_in_any_spelling(typed: str, name: str) -> None:
    assert gpu_named(typed) is GPUS[name]


def test_unknown_names_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(Refusal, match=r"gpu must be one of rtx3090, .*, h100, .*, b200, got 'h1000'"):
        gpu_named("h1000")


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-PCIE-40GB", "a100-40-pcie"),
        ("NVIDIA A100 80GB PCIe", "a100-80-pcie"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx6000-ada"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA L40", None),
        ("Tesla T4", None),
    ],
)
def test_devices_are_told_apart(device: str, name: str | None) -> None:
    assert gpu_of_device(device) is (None if name is None else GPUS[name])


def test_rates_are_dense_ones() -> None:
    """Data sheets put the sparse rate first, which is twice the dense one: an H100's 1,979 and an A100's 624."""
    assert (GPUS["h100"].peak, GPUS["a100-80"].peak, GPUS["l4"].peak) == (989.4, 312.0, 121.0)
    assert all(gpu.source and gpu.memory >= 24 for gpu in GPUS.values())


def test_cards_on_pcie_have_no_links_of_their_own() -> None:
    """64 GB/s of PCIe 4.0 are printed for both ways, 128 of PCIe 5.0, and 600 or 900 of NVLink."""
    found = {name: gpu.link for name, gpu in GPUS.items() if name.startswith(("a100-80", "h100"))}
    assert found == {"a100-80": 300, "a100-80-pcie": 32, "h100": 450, "h100-pcie": 64}


def test_what_a_gpu_reaches_is_a_share_of_its_peaks() -> None:
    """0.65 of an H100's 989.4 TFLOP/s, 0.85 of its 3.35 TB/s, and 0.7 of half of its 900 GB/s of NVLink."""
    speed = GPUS["h100"].speed
    assert (speed.products, speed.memory, speed.links) == pytest.approx((643.1e12, 2847.5e9, 315e9), rel=1e-4)
    assert speed.attention < speed.products
