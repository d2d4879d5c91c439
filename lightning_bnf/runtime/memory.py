"""Memory of a device: what is free, and the most that something takes."""

import contextlib
import ctypes
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # glibc's malloc.h: M_TRIM_THRESHOLD and so on
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Unmeasurable(RuntimeError):
    """This machine does not tell how much memory is taken."""


def available_bytes(device: torch.device) -> int:
    """What could be taken in addition: of an accelerator, or of the machine and its control group.

    Raises `Unmeasurable` on machines other than Linux without an accelerator.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    _give_back_freed()
    limits = []
    with contextlib.suppress(OSError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        limits += [1024 * int(found[1])] if found else []
    with contextlib.suppress(OSError, ValueError):  # "max" where the group has no limit
        group = Path("/sys/fs/cgroup")
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    if not limits:
        raise Unmeasurable("the memory that is free is known on Linux and on CUDA devices only")
    return min(limits)


def taken_bytes(device: torch.device) -> int:
    """What this process holds now. Raises `Unmeasurable` as `available_bytes` does."""
    _give_back_freed()
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _status("VmRSS")


def peak_bytes(run: Callable[[], None], device: torch.device) -> int:
    """The most that this process holds while `run` runs. Raises `Unmeasurable` as `available_bytes` does."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device)
    _give_back_freed()
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")  # the high-water mark begins anew; where that is forbidden it is that of the whole run
    run()
    return highest_bytes()


def highest_bytes() -> int:
    """The most that this process has held on the CPU since it began, or since `peak_bytes` began anew.

    Not getrusage's `ru_maxrss`, which a new process takes over from the one that started it.
    Raises `Unmeasurable` as `available_bytes` does.
    """
    return _status("VmHWM")


def synchronize(device: torch.device) -> None:
    """Wait until what was launched on a device is done: before that a clock tells how long launching took."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def keep_freed_memory(keep: bool, given_back_from: int = 2**25) -> None:
    """Whether what a tensor on the CPU leaves stays with the process for the next one, or goes back to the system.

    Large tensors (a tile of logits, a head's gradient) would else be mapped and zeroed by the system anew in every
    step, which took a tenth of a step of the bundled model; the peak is the same. Where malloc is not glibc's, nothing
    changes.

    Args:
        keep: Whether it stays. If not, glibc works nearly as it does by itself, once large tensors came and went: it
            then keeps what is smaller than 32 MiB, up to 64 MiB of it. (Whoever sets its numbers ends their growth.)
        given_back_from: Bytes from which a tensor goes back as soon as it is freed, where nothing is to stay. The less
            this is, the more often the system maps memory and zeroes it: from 128 KiB, where glibc begins, a forward
            pass of the bundled model took 1.9 times as long.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_MMAP_MAX, 0 if keep else 65536)
        libc.mallopt(_MMAP_THRESHOLD, given_back_from)
        libc.mallopt(_TRIM_THRESHOLD, -1 if keep else 2**26)  # -1: never
    if not keep:
        _give_back_freed()


def _give_back_freed() -> None:
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text()) if _STATUS.exists() else None
    if found is None:
        raise Unmeasurable("the memory that is taken is known on Linux and on CUDA devices only")
    return 1024 * int(found[1])
