"""Folders that are whole or not there, and what is written into them."""

import glob
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from lightning_bnf.export.rounding import Rounding
from lightning_bnf.policies.base import Policy
from lightning_bnf.runtime.distributed import whole
from lightning_bnf.runtime.files import clear_unfinished, replacing
from lightning_bnf.runtime.ownership import check_replaceable, mark_contents
from lightning_bnf.runtime.refusal import Refusal

MAX_SHARD_SIZE = "5GB"


def check_shard_size(size: str) -> str:
    """The size as it was given. Raises `Refusal` for what is none, which the library takes or finds out at the end."""
    number = re.fullmatch(r"(\d+(\.\d+)?) ?[KMGT]B", str(size).upper())
    if number is None or not float(number[1]):
        raise Refusal(f"max_shard_size must be a size such as 5GB or 500MB, got {size!r}")
    return size


@contextmanager
def finished_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well, and is removed when it does not.

    So a full disk or a kill leaves nothing half-written behind, and never harms what was there before. What an earlier
    process left when it was killed is removed, and what it was about to replace is there again. Raises `Refusal`,
    before the block and again after it, where `folder` holds anything but what was exported there: what a user added or
    changed is not replaced.
    """
    clear_unfinished(folder.parent.glob(f".{glob.escape(folder.name)}.*"))
    check_replaceable("folder", folder)
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        yield unfinished
        for path in unfinished.iterdir():  # safetensors leaves its files to their owner alone
            path.chmod(0o644)
        mark_contents(unfinished, "export")
        check_replaceable("folder", folder)


def whole_weights(
    policy: Policy,
    keep: bool = True,
    trained: Callable[[Tensor], Tensor] | None = None,
    rounding: Rounding | None = None,
) -> dict[str, Tensor]:
    """The trainable tensors by name, gathered from all ranks, on the CPU; nothing where `keep` is false.

    Every rank must call it. `trained`: what is taken for a tensor, such as its float32 master; `rounding`: what they
    are rounded to where it applies, and what is told what that changes; None leaves them as they are.
    """
    found = {}
    for name, parameter in policy.trainable().items():
        value = whole((parameter if trained is None else trained(parameter)).detach())
        if keep:
            found[name] = value = value.to("cpu")
            if rounding is not None:
                own = name.removeprefix("model.")
                rounded = rounding.rounded(own, value)
                rounding.add(own, parameter, value, rounded)
                found[name] = rounded if rounding.certain else value
    if keep and rounding is not None and not rounding.certain and rounding.applies():
        for name in found:  # one at a time: both at once would be half as much memory again
            found[name] = rounding.rounded(name.removeprefix("model."), found[name])
    return found


def write_policy(
    policy: Policy, weights: dict[str, Tensor], card: str, folder: Path, max_shard_size: str = MAX_SHARD_SIZE
) -> None:
    """The policy with its tokenizer and card as `folder`: a peft folder, or a sharded `save_pretrained` folder."""
    with finished_folder(folder) as unfinished:
        policy.save(str(unfinished), weights, max_shard_size)
        (unfinished / "README.md").write_text(card)
