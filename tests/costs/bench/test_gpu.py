"""The GPU's sections, rehearsed with toys on a CPU: one variant for each kind of contest, or all of them."""

import os
from pathlib import Path
from typing import Any

import pytest
from support.turns import here

from lightning_bnf.costs.bench import gpu
from lightning_bnf.costs.bench.run import bench

pytestmark = pytest.mark.slow

EVERY = os.environ.get("BENCH") == "all"


def test_every_section_runs(tiny_folder: str, tmp_path: Path) -> None:
    """BENCH=all takes the whole command with its processes."""
    if EVERY:
        bench(["gpu"], source=tiny_folder, repeats=1, threads=1, rehearse=True, markdown_file=tmp_path / "gpu.md")
        return
    groups, told = gpu.variants(tiny_folder, str(tmp_path), rehearse=True), dict[str, dict[str, Any]]()
    for variant in (one for group in groups for one in group):
        if variant.contest.__name__ not in told or "24 GB" in variant.case:
            here([variant], 1)
            assert not variant.error, variant.error
            told[f"{variant.contest.__name__}{' auto' if '24 GB' in variant.case else ''}"] = variant.more
    assert set(told) == {
        "against_float64", "softmaxes", "contest", "micro_batches", "train", "count_waits", "train auto", "trl_on_gpu",
    }  # fmt: skip
    assert told["against_float64"]["logps_error"][0] < 1e-5
    assert {"planned_bytes", "flops", "tokens", "budget"} <= set(told["train"])
    assert told["train"]["flops"][0] / told["train"]["tokens"][0] > 6 * 10**4, "six for a weight of a token"
    assert told["train auto"]["budget"][0] >= 256
    assert told["count_waits"]["waits"] == [0]


def test_a_card_gets_its_own_kernels_and_sizes() -> None:
    names = {variant.name: variant for group in gpu.variants("x", "y", rehearse=False) for variant in group}
    assert names["shared prompts, flex attention"].arguments["training"].attention == "flex_attention"
    assert names["BNF, tiles of 1024 MiB"].arguments["tile_bytes"] == 2**30
    devices = {variant.arguments.get("device") or variant.arguments["training"].device for variant in names.values()}
    assert devices == {"cuda"}
