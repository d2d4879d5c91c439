"""Memory that is measured, and the budget of a micro-batch that follows from it."""

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
    with pytest.raises(memory.Unmeasurable, match="known on Linux and on CUDA devices only"):
        memory.taken_bytes(CPU)


COUNTS = """
import ctypes, torch
from lightning_bnf.runtime import memory

class MallInfo(ctypes.Structure):  # glibc's malloc.h: struct mallinfo2
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_size_t) for name in names]

libc = ctypes.CDLL(None)
if hasattr(libc, "mallinfo2"):
    libc.mallinfo2.restype = MallInfo
    for keep, given_back_from, size in {cases}:
        memory.keep_freed_memory(keep, given_back_from)
        before = libc.mallinfo2().hblkhd
        tensor = torch.ones(size // 4)
        mapped = libc.mallinfo2().hblkhd - before
        del tensor
        print(int(mapped >= size), int(libc.mallinfo2().fordblks >= size))
"""


def mapped_and_left(*cases: tuple[bool, int, int]) -> list[str]:
    """Of each (keep, given_back_from, bytes of a tensor), in order and in a process of their own, as malloc counts:
    "1 0" where it was mapped and given back, "0 1" where it was part of a heap and stays there, free."""
    code = COUNTS.replace("{cases}", repr(cases))
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    if not shown:
        pytest.skip("malloc does not tell how it took memory: it is not glibc 2.33 or later")
    return shown.splitlines()


@linux
def test_freed_memory_that_is_kept_is_not_mapped_again() -> None:
    assert mapped_and_left((False, 2**25, 2**26), (True, 2**25, 2**26)) == ["1 0", "0 1"]


@linux
def test_after_a_run_tensors_of_a_layer_are_not_mapped_each_time() -> None:
    """4 MiB stay, as glibc would have it by itself; unless it is told to give such back."""
    counted = mapped_and_left((True, 2**25, 2**22), (False, 2**25, 2**22), (False, 2**17, 2**22))
    assert [line[0] for line in counted] == ["0", "0", "1"]


def test_only_a_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for name in ("cpu", "cuda:1"):
        memory.synchronize(torch.device(name))
    assert waited == [torch.device("cuda:1")]
