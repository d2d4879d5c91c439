"""Memory that is measured, and the budget of a micro-batch that follows from it."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_bnf.runtime import memory

CPU = torch.device("cpu")
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux and on CUDA devices")


@linux
def test_a_peak_counts_what_a_function_took_and_gave_back() -> None:
    """64 MiB of ones are taken and dropped: the peak is 64 MiB above what is held before and after."""
    before = memory.taken_bytes(CPU)

    def take() -> None:
        torch.ones(16 * 2**20).sum()

    peak = memory.peak_bytes(take, CPU) - before
    assert 60 * 2**20 < peak < 90 * 2**20
    assert memory.taken_bytes(CPU) - before < 30 * 2**20


@linux
def test_a_new_process_does_not_take_over_the_peak_of_its_parent() -> None:
    held = torch.ones(2**28)  # a GiB
    code = "from lightning_bnf.runtime.memory import highest_bytes; print(highest_bytes())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 10**7 < int(shown) < 4 * len(held) < memory.highest_bytes()


@linux
def test_free_memory_is_some_of_the_machine() -> None:
    assert 2**20 < memory.available_bytes(CPU) < 2**50


def test_where_nothing_is_told_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    with pytest.raises(memory.Unmeasurable, match="accepted: Linux, or a CUDA device"):
        memory.taken_bytes(CPU)


@linux
def test_freed_memory_that_is_kept_is_not_mapped_again() -> None:
    """Twenty times 64 MiB: mapped anew at every time, or once, which the pages that the system had to find tell."""

    def pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            torch.ones(16 * 2**20)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    anew = pages()
    memory.keep_freed_memory(True)
    try:
        held = memory.taken_bytes(CPU)
        pages()  # the first ones may go to several holes that are free
        assert pages() < anew / 10
        assert memory.taken_bytes(CPU) - held < 30 * 2**20, "what is free does not count as taken"
    finally:
        memory.keep_freed_memory(False)
    assert pages() > anew / 2
