"""The configs and data that come with the package: inside an installed one, beside it in a clone."""

from pathlib import Path

import lightning_bnf
from lightning_bnf.runtime.refusal import Refusal

BUNDLED_DATA = "bundled:"


def shipped(name: str) -> Path:
    """Where `name`, such as `configs/loss/bnf.yaml`, lies on this machine; it need not be there.

    A wheel carries the folders in `lightning_bnf/shipped` (setup.py puts them there), as its packages are all that is
    installed.
    """
    package = Path(lightning_bnf.__file__).parent
    installed = package / "shipped"
    return (installed if installed.is_dir() else package.parent) / name


def resolved(path: str) -> str:
    """The file that `bundled:quickstart/train_pairs.jsonl` stands for; any other path as it is.

    Raises `Refusal` where no such file comes with the package.
    """
    if not path.startswith(BUNDLED_DATA):
        return path
    data = shipped("data")
    files = {file.relative_to(data).as_posix(): file for file in sorted(data.rglob("*.jsonl"))}
    name = path.removeprefix(BUNDLED_DATA)
    if name not in files:
        raise Refusal(f"the name behind 'bundled:' must be one of {', '.join(files)}, got {name!r}")
    return str(files[name])
