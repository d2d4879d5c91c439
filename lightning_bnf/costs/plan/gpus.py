"""GPUs by name: memory, the peak rate of their dense matrix products in bfloat16, and what they move, as the vendors
print them."""

import re
from dataclasses import dataclass

from lightning_bnf.runtime.refusal import Refusal

EFFICIENCY = 0.4
"""Share of matrix products' rate that a run is taken to reach on a GPU that is not in the table: assumed."""

PRODUCTS, ATTENTION, MEMORY, LINKS = 0.65, 0.35, 0.85, 0.7
"""Shares of a GPU's peaks that matrix products, attention's kernels, reading and writing, and collectives are taken to
reach: assumed, not measured."""


@dataclass(frozen=True)
class Speed:
    """What a device reaches: FLOP/s of products and of attention, bytes a second of its memory, and bytes a second that
    it sends to the other devices of a node."""

    products: float
    attention: float
    memory: float
    links: float

    def seconds(self, kind: str, flops: float, bytes: float) -> float:
        """Of an operation of a kind: what takes longer, computing or moving."""
        return max(flops / (self.attention if kind == "attention" else self.products), bytes / self.memory)


@dataclass(frozen=True)
class Gpu:
    """name: as vendors print it; memory: GB (10^9 bytes); peak: TFLOP/s of dense bfloat16 products with float32 sums;
    bandwidth: of its memory, GB/s; link: GB/s that it sends to other devices, half of what is printed for both ways (of
    NVLink, else of PCIe: bridges join two cards alone); source: where the numbers stand. Data sheets print twice the
    rate for sparse matrices, which nothing here has."""

    name: str
    memory: float
    peak: float
    bandwidth: float
    link: float
    source: str

    @property
    def speed(self) -> Speed:
        """What it is taken to reach."""
        peak = 1e12 * self.peak
        return Speed(PRODUCTS * peak, ATTENTION * peak, 1e9 * MEMORY * self.bandwidth, 1e9 * LINKS * self.link)


_AMPERE = "NVIDIA Ampere GA102 GPU Architecture, white paper, appendix A"
_ADA = "NVIDIA Ada GPU Architecture, white paper, appendix A"
_BLACKWELL = "NVIDIA RTX Blackwell GPU Architecture, white paper, appendix A"

GPUS = {
    "rtx3090": Gpu("GeForce RTX 3090", 24, 71.0, 936, 32, _AMPERE),
    "rtx4090": Gpu("GeForce RTX 4090", 24, 165.2, 1008, 32, _ADA),
    "rtx5090": Gpu("GeForce RTX 5090", 32, 209.5, 1792, 64, _BLACKWELL),
    "a6000": Gpu("RTX A6000", 48, 154.8, 768, 32, "NVIDIA RTX A6000, data sheet"),
    "rtx6000-ada": Gpu("RTX 6000 Ada Generation", 48, 364.2, 960, 32, "NVIDIA RTX 6000 Ada Generation, data sheet"),
    "l4": Gpu("L4", 24, 121.0, 300, 32, "NVIDIA L4 Tensor Core GPU, data sheet"),
    "l40s": Gpu("L40S", 48, 362.05, 864, 32, "NVIDIA L40S, data sheet"),
    "a10": Gpu("A10", 24, 125.0, 600, 32, "NVIDIA A10 Tensor Core GPU, data sheet"),
    "a10g": Gpu("A10G", 24, 70.0, 600, 32, "NVIDIA A10G Tensor Core GPU, data sheet"),
    "a100-40": Gpu("A100 40GB", 40, 312.0, 1555, 300, "NVIDIA A100 Tensor Core GPU, data sheet"),
    "a100-40-pcie": Gpu("A100 PCIe 40GB", 40, 312.0, 1555, 32, "NVIDIA A100 Tensor Core GPU, data sheet"),
    "a100-80": Gpu("A100 80GB", 80, 312.0, 2039, 300, "NVIDIA A100 Tensor Core GPU, data sheet"),
    "a100-80-pcie": Gpu("A100 PCIe 80GB", 80, 312.0, 1935, 32, "NVIDIA A100 Tensor Core GPU, data sheet"),
    "h100": Gpu("H100 SXM", 80, 989.4, 3350, 450, "NVIDIA H100 Tensor Core GPU Architecture, white paper"),
    "h100-pcie": Gpu("H100 PCIe", 80, 756.0, 2000, 64, "NVIDIA H100 Tensor Core GPU Architecture, white paper"),
    "h200": Gpu("H200 SXM", 141, 989.4, 4800, 450, "NVIDIA H200 Tensor Core GPU, data sheet"),
    "b200": Gpu("B200", 180, 2250.0, 8000, 900, "NVIDIA DGX B200, data sheet: a system of eight"),
}
"""Accepted names of `plan --gpu`."""

_DEVICES = {  # words of what CUDA calls a device, all of which must be in it, the closest first -> name above
    ("RTX", "3090"): "rtx3090",
    ("RTX", "4090"): "rtx4090",
    ("RTX", "5090"): "rtx5090",
    ("RTX", "A6000"): "a6000",
    ("RTX", "6000", "ADA"): "rtx6000-ada",
    ("L40S",): "l40s",
    ("L4",): "l4",
    ("A10G",): "a10g",
    ("A10",): "a10",
    ("A100", "PCIE", "80GB"): "a100-80-pcie",
    ("A100", "PCIE"): "a100-40-pcie",
    ("A100", "80GB"): "a100-80",
    ("A100",): "a100-40",
    ("H100", "PCIE"): "h100-pcie",
    ("H100", "HBM3"): "h100",
    ("H200",): "h200",
    ("B200",): "b200",
}
_OTHERS = {"LAPTOP", "MAX", "SUPER", "MIG", "D", "TI", "NVL"}  # words of devices that are slower or another one


def gpu_named(name: str) -> Gpu:
    """The GPU of a name, in any case and with any hyphens. Raises `Refusal` with the names that are known."""
    plain = {_plain(key): gpu for key, gpu in GPUS.items()}
    if _plain(name) not in plain:
        raise Refusal(f"gpu must be one of {', '.join(GPUS)}, got {name!r}")
    return plain[_plain(name)]


def gpu_of_device(name: str) -> Gpu | None:
    """The GPU that CUDA names `name`, such as `NVIDIA A100-SXM4-80GB`; None for one that is not in the table."""
    words = set(re.split(r"[^A-Z0-9]+", name.upper()))
    if words & _OTHERS:
        return None
    return next((GPUS[key] for wanted, key in _DEVICES.items() if set(wanted) <= words), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
