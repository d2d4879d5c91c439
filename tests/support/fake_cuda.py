"""Fake tensors of a CUDA device on a torch for CPUs: what runs on a GPU is walked through, operation by operation.

A fake tensor has a shape, a type and a device, and no contents: code that waits for the device to know them raises.
What kernel attention takes is torch's own choice at run time, which is written down again here; so is the head's kernel
of Triton, as one launch. What this cannot see: how fast anything is, kernels of libraries that are not torch's, and
what transformers asks of masks where it is not being traced.
"""

import ctypes
import re
import subprocess
import sysconfig
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils import cpp_extension
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_bnf.policies.head import tiles
from lightning_bnf.policies.head.softmax import Logits, TileSoftmax

SOURCE = Path(__file__).with_name("fake_cuda.cpp")
HALVES = (torch.bfloat16, torch.float16)


def build(folder: Path) -> Path:
    """The shim as a library to be loaded before torch. Raises `CalledProcessError` or `OSError` where that fails."""
    library = folder / "fake_cuda.so"
    include = [f"-I{path}" for path in (*cpp_extension.include_paths(), sysconfig.get_paths()["include"])]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    torchs = str(Path(torch.__file__).parent / "lib")
    flags = ["-shared", "-fPIC", "-std=c++20", "-O0", abi, *include]
    linked = [f"-L{torchs}", f"-Wl,-rpath,{torchs}", "-Wl,--no-as-needed", "-lc10", "-ltorch_cpu"]
    words = ["g++", *flags, str(SOURCE), *linked, "-o", str(library)]
    subprocess.run(words, check=True, capture_output=True, text=True)
    return library


def begin(library: str) -> None:
    """Once a process, which the library was preloaded to."""
    ctypes.CDLL(library).be_a_cuda_device()
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda including_emulation=True: True  # type: ignore[assignment]
    functional.scaled_dot_product_attention = _attention  # type: ignore[assignment]
    tiles.tile_softmax = _one_launch  # type: ignore[attr-defined]
    warnings.simplefilter("ignore")


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """FlashAttention's kernel for halves without a mask, else the memory-efficient one, which takes additive masks."""
    if torch.is_autocast_enabled("cuda"):
        query, key, value = (one.to(torch.get_autocast_dtype("cuda")) for one in (query, key, value))
    flash = attn_mask is None and query.dtype in HALVES
    if enable_gqa and not flash and key.shape[1] != query.shape[1]:
        key, value = (one.repeat_interleave(query.shape[1] // key.shape[1], 1) for one in (key, value))
    if flash:
        found = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, False, scale=scale
        )
        return found[0]  # type: ignore[no-any-return]
    bias = attn_mask
    if bias is not None:
        if bias.dtype == torch.bool:
            bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill_(bias.logical_not(), float("-inf"))
        if bias.stride(-2) % 8 and bias.shape[-2] > 1:
            bias = functional.pad(bias, (0, -bias.shape[-1] % 8))[..., : key.shape[2]]
        bias = bias.expand(*query.shape[:3], key.shape[2])
    found = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, dropout_p, is_causal, scale=scale
    )
    return found[0]  # type: ignore[no-any-return]


def _one_launch(logits: Logits, gradient: bool, entropy: Tensor | None, scores: torch.dtype) -> TileSoftmax:
    """What the kernel of `triton_softmax` makes; its launch is counted by `Watch`."""
    products = logits.products
    logps, total = products.new_empty(len(products)), products.new_empty(len(products))
    derivative = torch.empty_like(logps) if gradient and logits.softcap is not None else None
    out = products if scores == products.dtype or not gradient else products.new_empty(products.shape, dtype=scores)
    return TileSoftmax(logps, total, derivative, out)


VIEWS = re.compile(
    r"(prim|_unsafe_view|view|t\.|transpose|permute|expand|slice|select\.int|unsqueeze|squeeze|detach|alias|as_strided|split"
    r"|narrow|unbind|_reshape_alias|unflatten|lift_fresh|empty|new_empty|is_same_size)"
)  # which launch nothing
LARGE = 2**20  # numbers of a factor


class Watch(TorchDispatchMode):
    """Counts launches, and keeps what is wrong with an operation, with the line of the package that it came from."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0
        self.kernels: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = str(func).removeprefix("aten."), kwargs or {}
        made = func(*args, **kwargs)
        if not VIEWS.match(name):
            self.launches += 1
            self.kernels[name] += 1
        tensors = [one for one in (*args, made) if isinstance(one, Tensor)]
        places = {one.device.type for one in tensors if one.ndim or one is made}
        if len(places) > 1 and name.startswith(("_to_copy", "copy_")):
            self.faults[f"{name} between {' and '.join(sorted(places))} at {_where()}"] += 1
        factors = [one for one in args if isinstance(one, Tensor) and one.ndim >= 2]
        wide = [one for one in factors if one.dtype == torch.float32 and one.numel() >= LARGE]
        if name.startswith(("mm", "addmm", "bmm", "baddbmm")) and len(wide) > ("addmm" in name):
            self.faults[f"{name} of float32 {[tuple(one.shape) for one in factors]} at {_where()}"] += 1
        return made


def _where() -> str:
    import traceback

    frames = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_stack()
        if any(part in frame.filename for part in ("lightning_bnf/", "transformers/", "peft/", "torchmetrics/"))
    ]
    return " < ".join(reversed(frames[-4:]))


class Alive(TorchDispatchMode):
    """The bytes of all storages that operations make, from when it sees them until they are gone, and the most at once.

    An accounting of its own, to hold the one of `plan` against.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor):
                self.meet(one)
        return made

    def meet(self, tensor: Tensor) -> None:
        """Count the tensor's storage from now on, and take note where it ends."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@contextmanager
def fake_tensors() -> Iterator[FakeTensorMode]:
    """Inside, tensors have no contents."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode
