"""A whole optimizer step on fake CUDA tensors: nothing waits for the device, nothing is copied from or to it, products
are of halves, and launches are few."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from support import catalog, fake_cuda
from support.walk import SIZES, WalkCell, setting_of
from transformers import LlamaConfig

from lightning_bnf.costs.plan.step import step_cost

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
EVERY = os.environ.get("WALK") == "all"
MAIN = ("bnf", "dpo", "kto", "aot")
MEASURED = ("bnf", "dpo")
POLICIES, LAYOUTS = ("full", "lora", "checkpointed"), ("padded", "packed", "shared_prompt")
CELLS = [WalkCell(loss, "full", "shared_prompt", layers=1) for loss in catalog.FILES]
CELLS += [WalkCell(loss, policy, layout) for loss in MAIN for policy in POLICIES for layout in LAYOUTS]
CELLS += [WalkCell(loss, policy, "packed_shared") for loss in MEASURED for policy in POLICIES]
if EVERY:
    CELLS += [WalkCell(loss, policy, layout) for loss in catalog.FILES for policy in POLICIES for layout in LAYOUTS]
CELLS = list(dict.fromkeys(CELLS))
DEPTHS = [WalkCell(loss, policy, layers=layers) for loss in ("bnf",) for policy in POLICIES for layers in (2, 3)]
AT_ONCE = 20  # cells in one process

LAUNCHES = {"full": 205, "lora": 285, "checkpointed": 380}
"""A layer, of the policy's pass, its reference's, and the backward pass, at most; 201, 280 and 372 were counted."""


def walked(library: Path, folder: Path, cells: list[WalkCell]) -> list[dict[str, Any]]:
    """What a process finds of some cells, which the shim is loaded into before torch."""
    asked = folder / "cells.json"
    asked.write_text(json.dumps([asdict(cell) for cell in cells]))
    environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    environment["LD_LIBRARY_PATH"] = str(Path(fake_cuda.torch.__file__).parent / "lib")
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent), environment.get("PYTHONPATH", "")])
    words = [sys.executable, "-m", "support.walk", str(library), str(folder / "model"), str(asked)]
    found = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=3600)
    assert found.returncode == 0, f"{found.stdout[-500:]}\n{found.stderr[-2000:]}"
    return [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[WalkCell, dict[str, Any]]:
    if sys.platform != "linux" or fake_cuda.torch.version.cuda is not None:
        pytest.skip("a torch for CPUs on Linux is needed: another one has CUDA's own guards, which ask for a driver")
    folder = tmp_path_factory.mktemp("walk")
    try:
        library = fake_cuda.build(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"g++ is needed, which builds what stands for a CUDA device: {error}")
    cells, found = list(dict.fromkeys([*CELLS, *DEPTHS])), []
    for start in range(0, len(cells), AT_ONCE):
        found += walked(library, folder, cells[start : start + AT_ONCE])
    return dict(zip(cells, found, strict=True))


def test_every_step_is_made_without_waiting_for_the_device(steps: dict[WalkCell, dict[str, Any]]) -> None:
    """An operation whose shape or next step depends on values raises on tensors that have none."""
    errors = {cell: f"{found['error']}\n{found['at']}" for cell, found in steps.items() if "error" in found}
    assert not errors, "\n\n".join(f"{cell}: {error}" for cell, error in errors.items())


def test_nothing_is_copied_between_devices_and_products_are_of_halves(steps: dict[WalkCell, dict[str, Any]]) -> None:
    faults = {f"{fault}: {cell}" for cell, found in steps.items() for fault in found.get("faults", {})}
    assert not faults, "\n".join(sorted(faults))


def test_attention_and_head_take_their_kernels(steps: dict[WalkCell, dict[str, Any]]) -> None:
    for cell, found in steps.items():
        kernels = found.get("kernels", {})
        attention = [name for name in kernels if "attn" in name or "attention" in name]
        kernel = "_scaled_dot_product_flash_attention" if cell.layout == "padded" else "torch_attn._varlen_attn"
        assert attention, cell
        assert all(name.startswith(kernel) for name in attention), (cell, attention)
        assert not any(name.startswith("_softmax") for name in kernels), cell
        assert any(name.startswith("mm.dtype") for name in kernels), cell


@pytest.mark.parametrize("policy", POLICIES)
def test_launches_of_a_layer_are_bounded(steps: dict[WalkCell, dict[str, Any]], policy: str) -> None:
    two, three = (steps[WalkCell("bnf", policy, layers=layers)]["launches"] for layers in (2, 3))
    assert 0 < three - two <= LAUNCHES[policy]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("loss", MEASURED)
def test_as_much_is_alive_as_plan_says(
    steps: dict[WalkCell, dict[str, Any]], tmp_path: Path, loss: str, policy: str
) -> None:
    """Gradients, activations and the head's tile at the highest moment, by two accountings; the plan's is of a CPU."""
    LlamaConfig(num_hidden_layers=2, **SIZES).save_pretrained(tmp_path)
    for layout in (*LAYOUTS, "packed_shared"):
        found = steps[WalkCell(loss, policy, layout)]["beside"]
        phases = step_cost(setting_of(loss, policy, layout, str(tmp_path))).phases[:2]
        planned = max(phase.beside + phase.gradients for phase in phases)
        assert found == pytest.approx(planned, rel=0.03), layout
