"""The head's Triton kernel for four generations of GPUs, on none of them: what ptxas makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
REGISTERS = 65_536 // (16 * 32 * 2)  # of a thread, so that two programs of 16 warps fit on a multiprocessor


@pytest.fixture(scope="module")
def builds() -> list[dict[str, Any]]:
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent), environment.get("PYTHONPATH", "")])
    words = [sys.executable, "-m", "support.kernels_ahead"]
    found = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr[-2000:]
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_every_variant_is_compiled_for_every_architecture(builds: list[dict[str, Any]]) -> None:
    assert {build["architecture"] for build in builds} == {80, 89, 90, 100}
    assert len(builds) == 4 * 6


def test_a_multiprocessor_holds_two_programs_and_nothing_is_spilled(builds: list[dict[str, Any]]) -> None:
    for build in builds:
        assert build["registers"] <= REGISTERS, build
        assert build["spills"] == build["stack"] == 0, build
        assert build["shared"] <= 2048, build


def test_whole_multiples_of_16_are_read_16_bytes_at_a_time(builds: list[dict[str, Any]]) -> None:
    """A block of 8,192 numbers on 16 warps of 32 threads is 16 a thread: four loads for each of up to two readings, and
    one for the target's own logit."""
    for build in builds:
        wide, narrow = build["loads"]["16"], build["loads"]["4"]
        if build["aligned"]:
            assert wide >= 4 * (1 + (build["gradient"] or build["entropy"])), build
            assert narrow <= 2, build
        else:
            assert wide == 0, build
