"""Files that a disk or a download has harmed: each range of their bytes flipped, zeroed or cut off.

A reader refuses them in a sentence, or gives what it gave before. `BROKEN_FILES` is how many ranges a file is cut into;
`make fuzz` takes many.
"""

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed.checkpoint as sharded
from support.cache import MANIFEST, A, B, filled
from support.models import tiny_llama_model

from lightning_bnf.policies import LoRAPolicy
from lightning_bnf.policies.adapters import check_settings, start_from
from lightning_bnf.policies.reference.store import LogpsCache
from lightning_bnf.policies.sources import load_model
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.checkpoints import WRITTEN, check_checkpoint, seal

RANGES = int(os.environ.get("BROKEN_FILES", "12"))
WRITTEN_BY_A_RUN = dict.fromkeys(WRITTEN, 3) | {"state_dict": {"policy.w": torch.arange(2000.0)}}


class Kind(NamedTuple):
    """A file of a folder: who writes the folder, who reads it, and how many of the file's first bytes are protected by
    a checksum or by what they must agree with (all for None)."""

    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    file: str
    protected: Callable[[bytes], int] | None = None


def write_checkpoint(folder: Path) -> None:
    torch.save(WRITTEN_BY_A_RUN, folder / "step=1.ckpt")


def read_checkpoint(folder: Path) -> Any:
    check_checkpoint(folder / "step=1.ckpt")
    return torch.load(folder / "step=1.ckpt", weights_only=True)["state_dict"]["policy.w"].tolist()


def write_sharded(folder: Path) -> None:
    sharded.save({"w": torch.arange(2000.0), "n": 3}, checkpoint_id=folder / "step=1.ckpt", no_dist=True)
    torch.save(dict.fromkeys(WRITTEN, 3), folder / "step=1.ckpt" / "meta.pt")
    seal(folder / "step=1.ckpt")


def read_sharded(folder: Path) -> Any:
    check_checkpoint(folder / "step=1.ckpt")
    state = {"w": torch.zeros(2000)}
    sharded.load(state, checkpoint_id=folder / "step=1.ckpt", no_dist=True)
    return state["w"].tolist()


def read_cache(folder: Path) -> Any:
    cache = LogpsCache(folder, MANIFEST)  # what was cut off is computed again
    return [cache.get([key], ["x"]).tolist() if key in cache else None for key in (A, B)]


def write_model(folder: Path) -> None:
    tiny_llama_model(32).save_pretrained(folder)


def read_model(folder: Path) -> Any:
    return {name: value.tolist() for name, value in load_model(str(folder)).state_dict().items()}


def adapted(adapter: str | None = None) -> LoRAPolicy:
    policy = LoRAPolicy("tiny", r=2, target_modules=["q_proj"])
    policy.adopt(tiny_llama_model(32))
    if adapter is not None:
        check_settings(adapter, policy.config)
        start_from(policy.adapted, adapter, policy.config)
    return policy


def write_adapter(folder: Path) -> None:
    torch.manual_seed(1)
    adapted().adapted.save_pretrained(folder)


def read_adapter(folder: Path) -> Any:
    return {name: value.tolist() for name, value in adapted(str(folder)).trainable().items()}


def header(content: bytes) -> int:
    """Of safetensors: its length, and the JSON of names, types, shapes and places. The numbers have no checksum."""
    return 8 + int.from_bytes(content[:8], "little")


KINDS = {
    "checkpoint": Kind(write_checkpoint, read_checkpoint, "step=1.ckpt"),
    "sharded places": Kind(write_sharded, read_sharded, "step=1.ckpt/.metadata"),
    "sharded tensors": Kind(write_sharded, read_sharded, "step=1.ckpt/__0_0.distcp"),
    "sharded rest": Kind(write_sharded, read_sharded, "step=1.ckpt/meta.pt"),
    "cache's manifest": Kind(filled, read_cache, "manifest.json"),
    "cache's keys": Kind(filled, read_cache, "keys-0.bin"),
    "cache's values": Kind(filled, read_cache, "values-0.f32"),
    "model": Kind(write_model, read_model, "model.safetensors", header),
    "adapter": Kind(write_adapter, read_adapter, "adapter_model.safetensors", header),
}


def harmed(content: bytes, protected: int, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Each range of the protected bytes: all bits flipped, one bit flipped, zeroed, and the file cut off at it."""
    borders = sorted({protected * i // RANGES for i in range(RANGES + 1)})
    for first, end in itertools.pairwise(borders):
        part, bit = content[first:end], draw.randrange(8 * (end - first))
        for what, other in (
            ("flipped", bytes(byte ^ 255 for byte in part)),
            ("one bit flipped", (int.from_bytes(part, "little") ^ 1 << bit).to_bytes(len(part), "little")),
            ("zeroed", bytes(len(part))),
        ):
            yield f"bytes {first} to {end} {what}", content[:first] + other + content[end:]
        yield f"cut off at {first}", content[:first]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_harmed_file_is_refused_or_harmless(tmp_path: Path, kind: Kind) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    kind.make(whole)
    wanted, content = kind.read(whole), (whole / kind.file).read_bytes()
    protected = kind.protected(content) if kind.protected else len(content)
    refused = 0
    for number, (what, bytes_) in enumerate(harmed(content, protected, random.Random(1))):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        (folder / kind.file).write_bytes(bytes_)
        try:
            found = kind.read(folder)
        except Refusal:
            refused += 1
            continue
        except BaseException as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        if found != wanted:
            assert kind.file == "keys-0.bin" or kind.file == "values-0.f32", what
            assert all(one in (None, other) for one, other in zip(found, wanted)), f"{what}: wrong numbers"
        shutil.rmtree(folder)
    assert refused, "some harm is noticed"
