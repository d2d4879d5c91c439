"""The resolved config of a run: in its folder and with every logger, without secrets; and the run that one tells."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from lightning_bnf.cli.words import Option, settings
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.ownership import holds_run
from lightning_bnf.training.checkpoints import lies_in

FILES = {"fit": "config.yaml"} | {name: f"config_{name}.yaml" for name in ("validate", "test", "predict")}
"""Command -> what its resolved config is called in the run folder."""

MASK = "***"
_SECRET = re.compile(r"(^|[_\W])(api_?key|key|token|password|passwd|secret|credentials?|authorization)$", re.IGNORECASE)
_USER_OF_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


class SaveConfig(SaveConfigCallback):
    """Writes the resolved config into the run folder, and hands it to every logger as hyper-parameters.

    Both are read by others than who typed it, so secrets are masked: a config with one is not usable as it is.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **kwargs: Any):
        super().__init__(parser, masked(config), **kwargs)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """A run that is gone on with keeps its config until it trains: what is refused before, or has nothing left to
        train, does not replace it."""
        folder = trainer.log_dir  # of all ranks
        if stage != "fit" or folder is None or not (Path(folder) / self.config_filename).exists():
            self._write(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "fit")

    def _write(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's own writes the file in place, which a full disk leaves cut off."""
        folder = trainer.log_dir
        if trainer.is_global_zero and folder is not None and not self.already_saved:
            write_text(Path(folder) / self.config_filename, self.parser.dump(self.config, skip_none=False))
            self.save_config(trainer, pl_module, stage)
        self.already_saved = True

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        settings = flattened(yaml.safe_load(self.parser.dump(self.config, skip_none=False)))
        for logger in trainer.loggers:
            logger.log_hyperparams(settings)


def set_run_folder(config: Any, command: str, typed: Sequence[Option]) -> None:
    """Let a config that was saved with a run name the folder that it lies in now, so that it is used and shown."""
    folder = run_of(command, typed, config["ckpt_path"])
    if folder is not None:
        config["trainer"].default_root_dir = str(folder)


def run_of(command: str, typed: Sequence[Option], ckpt_path: str | None) -> Path | None:
    """The folder that a run's saved config lies in. What the config says of it was true when it was written: since then
    the folder may have been moved, and its name may be another run's.

    None where no such config is given, where what goes over it names a folder, and where a fit does not go on from one
    of the run's checkpoints, which makes another run.
    """
    naming = [option for option in typed if "trainer.default_root_dir" in settings([option])]
    folder = saved_run(naming[-1:])
    if folder is None:
        return None
    goes_on = command not in ("fit", "plan") or ckpt_path == "last" or lies_in(ckpt_path, folder)
    return folder if goes_on else None


def saved_run(typed: Sequence[Option]) -> Path | None:
    """The folder of the run whose saved config was given, the last of several; None where none was."""
    for option in reversed(typed):
        config = Path(option.values[0]) if option.key == "config" and option.values else None
        if config is not None and config.name in FILES.values():
            # a name, to be moved aside by
            folder = config.parent if config.parent.name.strip(".") else config.parent.resolve()
            if holds_run(folder):
                return folder
    return None


def masked(config: Namespace) -> Namespace:
    """A copy with `***` for every text whose key ends in key, token, password, secret or the like, and for users and
    passwords inside addresses."""
    copy = config.clone()
    for key, value in list(copy.items()):
        copy[key] = _masked(value, secret=any(_SECRET.search(name) for name in key.split(".")))
    return copy


def _masked(value: Any, secret: bool) -> Any:
    if isinstance(value, Namespace):
        return Namespace({key: _masked(held, secret or bool(_SECRET.search(key))) for key, held in vars(value).items()})
    if isinstance(value, dict):
        return {key: _masked(held, secret or bool(_SECRET.search(str(key)))) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_masked(held, secret) for held in value)
    if isinstance(value, str):
        return MASK if secret and value else _USER_OF_URL.sub(MASK, value)
    return value


def flattened(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys, as they are typed: {"a": {"b": 1}} -> {"a.b": 1}; places in lists are
    numbers. A logger's page of hyper-parameters is a flat table."""
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list) and any(isinstance(held, dict) for held in value):
        entries = list(enumerate(value))
    else:
        return {prefix: value}
    return {
        key: held
        for name, inner in entries
        for key, held in flattened(inner, f"{prefix}.{name}" if prefix else str(name)).items()
    }
