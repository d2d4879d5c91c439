"""Short names: a loss, policy, optimizer, trainer or config that comes with the package, called without its path.

A name stands for the whole YAML file. The parser would carry arguments of one class over to the next (DPO's beta 0.5
to the next loss with a beta), so a name must have become a file, which states every argument, before it is parsed.
"""

from pathlib import Path
from typing import Any

from lightning_bnf.runtime.shipped import here_or_shipped, shipped

FOLDERS = {"model.loss": "loss", "model.policy": "policy", "model.optimizer": "optimizer", "trainer": "trainer"}
"""Setting that a file may fill -> folder of configs/ with the files that it has names for."""


def file_of(setting: str, value: str) -> str | None:
    """The shipped file that `value` names as this setting; None where it is a file of the user's or no name at all.

    `dpo`, `DPO`, `lightning_bnf.losses.DPO` and `configs/loss/dpo.yaml` in a folder without it are the same file.
    """
    if Path(value).is_file():
        return None
    if value.endswith((".yaml", ".yml")):
        return _shipped_path(value)
    module, _, name = value.rpartition(".")
    if module and not module.startswith("lightning_bnf."):
        return None
    return names(setting).get(_plain(name))


def config_of(command: str, value: str) -> str | None:
    """The shipped config that `value` names for a command: `quickstart`, `paper/llama3_bnf`."""
    if Path(value).is_file():
        return None
    if value.endswith((".yaml", ".yml")):
        return _shipped_path(value)
    candidates = [shipped(f"configs/{folder}{value}.yaml") for folder in (f"{command}/", "", "experiment/")]
    return next((str(path) for path in candidates if path.is_file()), None)


def names(setting: str) -> dict[str, str]:
    """Plain names of a setting -> shipped files: `lora` and `lorapolicy` for policy/lora.yaml."""
    folder = FOLDERS[setting]
    files = {_plain(path.stem): str(path) for path in sorted(shipped(f"configs/{folder}").glob("*.yaml"))}
    return files | {name + folder: file for name, file in files.items()}


SOURCE = "model.source"
"""Typed, or in a config, short for the policy's own."""


def source_in(config: Any) -> str | None:
    """The `model.source` of a config's content."""
    if not isinstance(config, dict):
        return None
    group, _, name = SOURCE.partition(".")
    model = config.get(group)
    found = config.get(SOURCE, model.get(name) if isinstance(model, dict) else None)
    return found if isinstance(found, str) else None


def with_files(config: Any) -> Any:
    """A config's content, with shipped files in place of the names that it has for losses, policies and the like, and
    without the `model.source` that is an option beside it (`words.with_sources`)."""
    if not isinstance(config, dict):
        return config
    changed = dict(config)
    if source_in(config) is not None:
        group, _, name = SOURCE.partition(".")
        changed.pop(SOURCE, None)
        if isinstance(changed.get(group), dict):
            changed[group] = {key: held for key, held in changed[group].items() if key != name}
    for setting in FOLDERS:
        group, _, name = setting.rpartition(".")
        if isinstance(changed.get(setting), str):
            changed[setting] = file_of(setting, changed[setting]) or changed[setting]
        if isinstance(changed.get(group), dict) and isinstance(changed[group].get(name), str):
            value = changed[group][name]
            changed[group] = changed[group] | {name: file_of(setting, value) or value}
    return changed


def _plain(name: str) -> str:
    """Without case and separators: `SimPO`, `simpo` and `APOZero`, `apo_zero`, `apo-zero` are alike."""
    return name.lower().replace("_", "").replace("-", "")


def _shipped_path(value: str) -> str | None:
    """What documents call configs/NAME, where the current folder has none."""
    held = here_or_shipped(value, "configs")
    return str(held) if held.is_file() else None
