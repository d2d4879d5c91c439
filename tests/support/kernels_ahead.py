"""The head's Triton kernel compiled ahead of time: `python -m support.kernels_ahead` writes what it finds as JSON.

A process of its own, as tests have kernels interpreted, and a function is one or the other from its first line on.
"""

import json
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES = (80, 89, 90, 100)


@dataclass(frozen=True)
class Build:
    """What is compiled: for which architecture; the scores' type; bias, soft-cap, gradient, entropy; `aligned`: rows of
    whole multiples of 16 numbers."""

    architecture: int
    scores: str = "bf16"
    bias: bool = False
    softcap: bool = False
    gradient: bool = True
    entropy: bool = False
    aligned: bool = True


VARIANTS: tuple[dict[str, Any], ...] = (
    {},  # a gradient in halves: what trains
    {"gradient": False, "scores": "fp32"},  # log-probs alone: a reference, the first pass of a sequence loss
    {"softcap": True},  # Gemma-2
    {"entropy": True},
    {"bias": True, "softcap": True, "entropy": True, "scores": "fp32"},
    {"aligned": False},
)


def compiled(build: Build) -> dict[str, Any]:
    """Registers, spills and shared bytes of a program, and how many of its loads are of so many bytes at once."""
    import triton
    from triton.backends import nvidia
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lightning_bnf.policies.head import triton_softmax as kernel

    pointers = {"z": "*fp32", "out": f"*{build.scores}", "target": "*i64"}
    pointers |= dict.fromkeys(("bias", "logps", "total", "derivative", "entropy"), "*fp32")
    numbers = {"vocabulary": "i32", "z_stride": "i32", "out_stride": "i32"}
    constants = {"BIAS": build.bias, "CAP": build.softcap, "GRADIENT": build.gradient, "ENTROPY": build.entropy}
    constants["BLOCK"] = kernel.BLOCK  # type: ignore[assignment]
    signature = pointers | numbers | {"scale": "fp32", "cap": "fp32"} | dict.fromkeys(constants, "constexpr")
    place = {name: (index,) for index, name in enumerate(signature)}
    divisible = [*pointers, *(numbers if build.aligned else ())]
    made = triton.compile(
        ASTSource(
            fn=kernel._softmax,
            signature=signature,
            constexprs={place[name]: value for name, value in constants.items()},
            attrs={place[name]: [["tt.divisibility", 16]] for name in divisible},
        ),
        target=GPUTarget("cuda", build.architecture, 32),
        options={"num_warps": kernel.WARPS},
    )
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "kernel.cubin"
        code.write_bytes(made.asm["cubin"])
        tools = Path(nvidia.__file__).parent / "bin"
        usage = _said(tools / "cuobjdump", "--dump-resource-usage", code)
        words = Counter(re.findall(r"\b(?:LDG|STG|LDL|STL)[.\w]*", _said(tools / "nvdisasm", "-c", code)))
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    assert found is not None, usage
    registers, stack, shared, local = map(int, found.groups())
    spills = sum(count for word, count in words.items() if word.startswith(("LDL", "STL")))
    loads = {str(width): _loads(words, width) for width in (16, 8, 4)}
    return asdict(build) | {
        "registers": registers,
        "stack": stack + local,
        "shared": shared,
        "spills": spills,
        "loads": loads,
    }


def _loads(words: Counter[str], width: int) -> int:
    """How many instructions read so many bytes at once from memory; 8-byte ones are of target ids."""
    named = {16: ".128", 8: ".64", 4: ""}
    sized = [word for word in words if word.startswith("LDG")]
    if named[width]:
        return sum(words[word] for word in sized if named[width] in word)
    return sum(words[word] for word in sized if not any(name in word for name in (".128", ".64", ".U16", ".U8")))


def _said(*words: Any) -> str:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    for architecture in ARCHITECTURES:
        for changes in VARIANTS:
            print(json.dumps(compiled(Build(architecture, **changes))), flush=True)
