"""The command line: Lightning's fit, validate, test and predict, and the package's own verbs.

python -m lightning_bnf fit --config configs/quickstart.yaml
python -m lightning_bnf prepare --config configs/prepare/quickstart.yaml
"""

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_bnf.callbacks import ExportPolicy, RunPlots
from lightning_bnf.callbacks.checkpoint_io import AtomicCheckpointIO
from lightning_bnf.datamodules.errors import DataError
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.evaluation.verify import VerifierError
from lightning_bnf.module import NonFiniteError, PreferenceModule
from lightning_bnf.policies.base import PolicyError
from lightning_bnf.policies.sources import SourceError
from lightning_bnf.preparation.prepare import prepare

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
VERBS: dict[str, Callable[..., None]] = {"prepare": prepare}
USER_ERRORS = (DataError, SourceError, PolicyError, VerifierError, NonFiniteError)


class Parser(LightningArgumentParser):
    """Refuses an unknown key with the nearest known one."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        hint = _nearest_key(self, message)
        super().error(message + (f"\nDid you mean {hint!r}?" if hint else ""), ex)


def _nearest_key(parser: jsonargparse.ArgumentParser, message: str) -> str | None:
    """The known key that the unknown one in an error message is probably a misspelling of."""
    found = re.search(r"Unrecognized arguments?: --([\w.+-]+)|Key '([^']+)' is not expected|key '([^']+)'", message)
    found = found or re.search(r"[Gg]roup '[^']*' does not accept (?:nested )?key '([^']+)'", message)
    if found is None:
        return None
    unknown = next(group for group in found.groups() if group)
    known = set(_known_keys(parser))
    classes = re.findall(r"lightning_bnf(?:\.\w+)+", message)
    known |= {name for path in classes for name in _arguments(path)}
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.6)
    if near:
        return near[0]
    last = difflib.get_close_matches(unknown.rsplit(".", 1)[-1], {key.rsplit(".", 1)[-1] for key in known}, n=1)
    return last[0] if last else None


def _known_keys(parser: jsonargparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield action.dest
        for sub in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            if isinstance(sub, jsonargparse.ArgumentParser):
                yield from _known_keys(sub)


def _arguments(path: str) -> list[str]:
    module, _, name = path.rpartition(".")
    try:
        return list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return []


class CLI(LightningCLI):
    """LightningCLI with a run folder that holds all of a run, and refusals in sentences."""

    parser: Any

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.set_defaults({"trainer.use_distributed_sampler": False, "trainer.num_sanity_val_steps": 0})

    def before_instantiate_classes(self) -> None:
        trainer = self._get(self.config, "trainer")
        if trainer.gradient_clip_val is not None:
            self.parser.error(
                f"trainer.gradient_clip_val {trainer.gradient_clip_val}: accepted is null; set "
                "model.optimization.max_grad_norm, which clips the gradient of the whole step"
            )
        if trainer.accumulate_grad_batches != 1:
            self.parser.error(
                f"trainer.accumulate_grad_batches {trainer.accumulate_grad_batches}: accepted is 1; set "
                "data.examples_per_step (rows of an optimizer step) and data.max_tokens (budget of a micro-batch)"
            )
        if trainer.use_distributed_sampler:
            self.parser.error(
                "trainer.use_distributed_sampler true: accepted is false; the step plan shares the rows over the ranks"
            )
        self.save_config_kwargs = {
            "overwrite": True,
            "config_filename": "config.yaml" if self.subcommand == "fit" else f"config_{self.subcommand}.yaml",
        }

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Logs, checkpoints, plots and the exported policy all go below `trainer.default_root_dir`."""
        config = self._get(self.config_init, "trainer")
        root = Path(config.default_root_dir or "runs/latest")
        kwargs["default_root_dir"] = str(root)
        if config.logger in (None, True):
            kwargs["logger"] = [CSVLogger(root, name="", version=""), TensorBoardLogger(root, name="", version="")]
        callbacks: list[Callback] = list(config.callbacks or [])
        if self.subcommand == "fit" and not config.fast_dev_run:
            callbacks += self._run_callbacks(root, {type(callback) for callback in callbacks})
        kwargs["callbacks"] = callbacks
        if config.strategy in ("auto", "single_device") and not config.plugins:
            kwargs["plugins"] = [AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs)

    def _run_callbacks(self, root: Path, given: set[type]) -> list[Callback]:
        """What every training run gets unless the config has its own."""
        standard: dict[type, Callable[[], Callback]] = {
            ModelCheckpoint: lambda: ModelCheckpoint(root / "checkpoints", filename="{step}", save_top_k=-1),
            RunPlots: RunPlots,
            ExportPolicy: ExportPolicy,
        }
        checkpointing = self._get(self.config_init, "trainer").enable_checkpointing is not False
        return [
            make()
            for kind, make in standard.items()
            if kind not in given and (checkpointing or kind is not ModelCheckpoint)
        ]


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; errors a user can mend end the program with status 2 and a sentence instead of a traceback."""
    words = list(sys.argv[1:] if args is None else args)
    try:
        _run(words)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _run(words: list[str]) -> None:
    command = words[0] if words else "--help"
    if command in VERBS:
        _run_verb(VERBS[command], command, words[1:])
    elif command in TRAINER_COMMANDS:
        CLI(
            PreferenceModule,
            PreferenceData,
            parser_class=Parser,
            seed_everything_default=1,
            auto_configure_optimizers=False,
            parser_kwargs={"prog": "python -m lightning_bnf", "default_env": False},
            args=words,
        )
    elif command in ("-h", "--help"):
        print(_overview())
    else:
        near = difflib.get_close_matches(command, [*TRAINER_COMMANDS, *VERBS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"error: there is no command {command!r}{hint}\n\n{_overview()}", file=sys.stderr)
        raise SystemExit(2)


def _run_verb(verb: Callable[..., None], name: str, words: list[str]) -> None:
    parser = Parser(prog=f"python -m lightning_bnf {name}", description=(verb.__doc__ or "").split("\n\n")[0])
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile, help="YAML file with the arguments below.")
    parser.add_function_arguments(verb, as_group=False)
    config = parser.parse_args(words)
    config.pop("config", None)
    verb(**parser.instantiate_classes(config))


def _overview() -> str:
    lines = {
        "fit": "align a policy with a loss on preference data",
        "validate": "metrics of a policy, or of the plain base, on the validation split",
        "test": "the same on the test split, with verifier pass rates",
        "predict": "write completions for the test prompts as JSONL",
    } | {name: (verb.__doc__ or "").split("\n")[0] for name, verb in VERBS.items()}
    table = "\n".join(f"  {name:10s} {text}" for name, text in lines.items())
    return (
        "usage: python -m lightning_bnf COMMAND --config FILE [--key value ...]\n\n"
        f"commands:\n{table}\n\nEvery command explains its settings with --help."
    )
