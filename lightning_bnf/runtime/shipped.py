"""The configs and data that come with the package: inside an installed one, beside it in a clone."""

from pathlib import Path

import lightning_bnf


def shipped(name: str) -> Path:
    """Where `name`, such as `configs/loss/bnf.yaml`, lies on this machine; it need not be there.

    A wheel carries the folders in `lightning_bnf/shipped` (setup.py puts them there), as its packages are all that is
    installed.
    """
    package = Path(lightning_bnf.__file__).parent
    installed = package / "shipped"
    return (installed if installed.is_dir() else package.parent) / name


def here_or_shipped(name: str, folder: str) -> Path:
    """The path `name`, with ~ for a home; the shipped file of that name where this machine has none there.

    So `data/quickstart/train_pairs.jsonl` (`folder`: data) is the same file in a clone and in any other folder.
    """
    path = Path(name).expanduser()
    if path.exists() or path.parts[:1] != (folder,) or ".." in path.parts:
        return path
    held = shipped(name)
    return held if held.is_file() else path
