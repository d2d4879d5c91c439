"""The command line: Lightning's fit, validate, test and predict, and the package's own verbs.

python -m lightning_bnf fit --config configs/quickstart.yaml
python -m lightning_bnf prepare --config configs/prepare/quickstart.yaml
"""

import dataclasses
import difflib
import importlib
import inspect
import itertools
import json
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lightning_bnf import losses
from lightning_bnf.bench.run import bench
from lightning_bnf.callbacks import ExportPolicy, Faults, RunLogger, RunPlots, WriteCompletions
from lightning_bnf.callbacks.checkpoint_io import AtomicCheckpointIO
from lightning_bnf.checkpoints import check_checkpoint, last_good
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.evaluation.analyze import analyze
from lightning_bnf.evaluation.answers import write_answers
from lightning_bnf.evaluation.comparison import rates_table
from lightning_bnf.evaluation.evaluate import evaluate
from lightning_bnf.evaluation.pass_rates import complete_and_verify, pass_rates, verified_prompts
from lightning_bnf.export.command import ExportOptions, export
from lightning_bnf.losses.table import print_losses
from lightning_bnf.module import NonFiniteError, PreferenceModule
from lightning_bnf.planning.command import Question, plan
from lightning_bnf.policies.reference import CachedReference
from lightning_bnf.preparation.near_duplicates import near_duplicates
from lightning_bnf.preparation.prepare import prepare
from lightning_bnf.reproduction import expanded, reproduce
from lightning_bnf.strategies import Combination, FullySharded, spread_of

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
VERBS: dict[str, Callable[..., None]] = {
    "analyze": analyze,
    "bench": bench,
    "evaluate": evaluate,
    "generate": write_answers,
    "losses": print_losses,
    "near_duplicates": near_duplicates,
    "prepare": prepare,
    "reproduce": reproduce,
}


class Parser(LightningArgumentParser):
    """Refuses what it does not know in one sentence, with the nearest name that it does know."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, allow_abbrev=False, **kwargs)  # a mistyped --data.max must not set the next best option

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        print(f"error: {_explained(self, message)}", file=sys.stderr)
        print("Every setting is explained by: python -m lightning_bnf COMMAND --help", file=sys.stderr)
        raise SystemExit(2)


def _explained(parser: jsonargparse.ArgumentParser, message: str) -> str:
    """The parser's message, cut to the sentence that a class refused its argument with, or with a hint added."""
    refused = [line.strip(" -") for line in message.splitlines() if ": accepted" in line]
    key = re.search(r'[Pp]arser key "([^"]+)"', message)
    if refused:
        return f"{key[1] + ': ' if key else ''}{refused[0]}"
    unknown = re.search(r"[Oo]ption '([\w.]+)'|[Uu]nrecognized arguments?: --([\w.-]+)|Key '([\w.]+)'", message)
    if unknown:
        name = next(group for group in unknown.groups() if group)
        near = _nearest_key(name, _known_keys(parser) | _arguments_of_classes(message))
        return message + (f"; did you mean {near!r}?" if near else "")
    if key and key[1] == "model.loss":
        names = ", ".join(sorted(name for name, value in vars(losses).items() if _is_loss(value)))
        return f"{message}\naccepted for model.loss: a YAML file such as configs/loss/bnf.yaml, or one of {names}"
    return message


def _is_loss(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, losses.Loss) and not inspect.isabstract(value)


def _nearest_key(unknown: str, known: set[str]) -> str | None:
    """The known key that `unknown` is probably a misspelling of: compared whole, else by its last word."""
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.7)
    if not near and "." in unknown:
        inside = {key for key in known if key.rpartition(".")[0] == unknown.rpartition(".")[0]}
        near = difflib.get_close_matches(unknown, inside, n=1, cutoff=0.5)
    return near[0] if near else None


def _known_keys(parser: jsonargparse.ArgumentParser) -> set[str]:
    keys: set[str] = set()
    for action in parser._actions:
        keys.add(action.dest)
        choices = action.choices if isinstance(action.choices, dict) else {}
        for sub in choices.values():
            keys |= _known_keys(sub) if isinstance(sub, jsonargparse.ArgumentParser) else set()
    return keys


def _arguments_of_classes(message: str) -> set[str]:
    """The constructor arguments of the classes that a message names."""
    names: set[str] = set()
    for path in re.findall(r"class_path '([\w.]+)'", message):
        module, _, name = path.rpartition(".")
        try:
            names |= set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
        except (ImportError, AttributeError, TypeError, ValueError):
            continue
    return names


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
        if str(trainer.precision).startswith("16"):  # on a CPU Lightning would replace it with another in silence
            self.parser.error(Combination("full", "one device", "none", str(trainer.precision), "cpu").refusal())
        if trainer.use_distributed_sampler:
            self.parser.error(
                "trainer.use_distributed_sampler true: accepted is false; the step plan shares the rows over the ranks"
            )
        self._check_checkpoint()
        self.save_config_kwargs = {
            "overwrite": True,
            "config_filename": "config.yaml" if self.subcommand == "fit" else f"config_{self.subcommand}.yaml",
        }

    def _check_checkpoint(self) -> None:
        """A checkpoint is looked at before anything is built; `last` is the latest whole one of the run folder."""
        config = self.config[self.subcommand]
        config["weights_only"] = True
        path = config.get("ckpt_path")
        if path == "last":
            folder = Path(self._get(self.config, "trainer").default_root_dir or "runs/latest") / "checkpoints"
            found = last_good(folder)
            if found is None:
                print(f"ckpt_path last: {folder} holds no checkpoint yet, so the run begins at its first step")
            config["ckpt_path"] = None if found is None else str(found)
        elif path is not None:
            check_checkpoint(Path(path))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Logs, checkpoints, plots and the exported policy all go below `trainer.default_root_dir`."""
        config = self._get(self.config_init, "trainer")
        root = Path(config.default_root_dir or "runs/latest")
        kwargs["default_root_dir"] = str(root)
        if self.subcommand != "fit":
            kwargs["logger"] = False  # a test's loggers would write over the metrics of the run
        elif config.logger in (None, True):
            if getattr(rank_zero_only, "rank", 0) == 0 and not self._get(self.config_init, "ckpt_path"):
                _move_aside(root)
            kwargs["logger"] = [RunLogger(root), TensorBoardLogger(root, name="", version="")]
        callbacks: list[Callback] = list(config.callbacks or [])
        if self.subcommand == "predict":
            callbacks.append(WriteCompletions())
        if self.subcommand == "fit" and not config.fast_dev_run:
            callbacks += self._run_callbacks(root, {type(callback) for callback in callbacks})
        kwargs["callbacks"] = callbacks
        if config.strategy != "fsdp2" and not isinstance(config.strategy, FullySharded) and not config.plugins:
            kwargs["plugins"] = [AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Refuse what would only be refused in each of the processes that Lightning starts."""
        spread_of(self.trainer.strategy)

    def before_validate(self) -> None:
        """Refuse several devices."""
        if self.trainer.world_size > 1:
            self.parser.error(
                f"trainer.devices: {self.trainer.world_size} devices; accepted for {self.subcommand} is one device"
            )

    before_test = before_predict = before_validate

    def after_test(self) -> None:
        """Pass rates where the test rows carry verifiers."""
        self._print_pass_rates("test")

    def after_validate(self) -> None:
        """Pass rates where the validation rows carry verifiers."""
        self._print_pass_rates("validation")

    def _print_pass_rates(self, split: str) -> None:
        policy, trainer = self.model.policy, self.trainer
        root = Path(trainer.default_root_dir)
        root.mkdir(parents=True, exist_ok=True)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        (root / f"{split}_metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
        prompts = verified_prompts(self.datamodule.split(split))
        if not prompts or not trainer.is_global_zero:
            return
        model = policy.loaded.to(trainer.strategy.root_device)
        records = complete_and_verify(model, policy.tokenizer, prompts, progress=f"Completions of {split} prompts")
        rates = pass_rates(records)
        print(rates_table(rates))
        (root / f"{split}_pass_rates.json").write_text(
            json.dumps([dataclasses.asdict(rate) for rate in rates], indent=1) + "\n"
        )

    def _run_callbacks(self, root: Path, given: set[type]) -> list[Callback]:
        """What every training run gets unless the config has its own."""
        standard: dict[type, Callable[[], Callback]] = {
            ModelCheckpoint: lambda: _two_last(root / "checkpoints"),
            Faults: lambda: Faults(str(root / "checkpoints")),
            RunPlots: RunPlots,
            ExportPolicy: ExportPolicy,
        }
        checkpointing = self._get(self.config_init, "trainer").enable_checkpointing is not False
        return [
            make()
            for kind, make in standard.items()
            if kind not in given and (checkpointing or kind not in (ModelCheckpoint, Faults))
        ]


class CacheCLI(CLI):
    """Everything of a fit that comes before its first step: the data are read and the reference cache is filled."""

    def before_instantiate_classes(self) -> None:
        config = self.config["fit"]
        config["model"]["reference"] = "cache"
        for name, value in (
            ("max_steps", 0),
            ("val_check_interval", 1.0),
            ("logger", False),
            ("callbacks", None),
            ("enable_checkpointing", False),
        ):
            config["trainer"][name] = value
        self.save_config_callback = None
        super().before_instantiate_classes()

    def _run_callbacks(self, root: Path, given: set[type]) -> list[Callback]:
        return []

    def after_fit(self) -> None:
        """Say where the cache is."""
        if not isinstance(self.model.reference, CachedReference):
            self.parser.error(f"model.loss {type(self.model.loss).__name__}: it needs no reference, so none is cached")
        cache = self.model.reference.cache
        print(f"{len(cache)} completions in {cache.folder}; train with --model.reference cache")


class ExportCLI(CLI):
    """Writes the policy of a checkpoint of a fit config as a folder; nothing is trained."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(ExportOptions, as_group=True)

    def before_instantiate_classes(self) -> None:
        config = self.config["validate"]
        if config["ckpt_path"] is None:
            self.parser.error("ckpt_path null: accepted are a checkpoint of the run, and 'last'")
        for name, value in (("devices", 1), ("num_nodes", 1), ("strategy", "auto"), ("callbacks", None)):
            config["trainer"][name] = value
        super().before_instantiate_classes()
        if config["ckpt_path"] is None:  # 'last' of a folder without one
            raise SystemExit(2)

    def _run_subcommand(self, subcommand: str) -> None:
        names = [field.name for field in dataclasses.fields(ExportOptions)]
        options = ExportOptions(**{name: self._get(self.config_init, name) for name in names})
        export(self.model, self.datamodule, self.trainer, Path(self._get(self.config_init, "ckpt_path")), options)


class PlanCLI(CLI):
    """What a fit would take of memory and time; neither weights nor devices are needed."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(Question, as_group=True)

    def before_instantiate_classes(self) -> None:
        for name, value in (("logger", False), ("callbacks", None)):
            self.config["fit"]["trainer"][name] = value
        super().before_instantiate_classes()

    def instantiate_classes(self) -> None:
        """Module and data, but no Trainer, which would look for the devices."""
        self.config_init = self.parser.instantiate_classes(self.config)
        self.model, self.datamodule = self._get(self.config_init, "model"), self._get(self.config_init, "data")

    def _run_subcommand(self, subcommand: str) -> None:
        names = [field.name for field in dataclasses.fields(Question)]
        question = Question(**{name: self._get(self.config_init, name) for name in names})
        if not plan(self.model, self.datamodule, self._get(self.config_init, "trainer"), question):
            raise SystemExit(1)


def _two_last(folder: Path) -> ModelCheckpoint:
    """Checkpoints at every validation, or every epoch: the last, and the one before in case that one is broken."""
    return ModelCheckpoint(
        folder, filename="{step}", monitor="step", mode="max", save_top_k=2, enable_version_counter=False
    )


DERIVED: dict[str, tuple[type[CLI], str]] = {
    "cache": (CacheCLI, "fit"),
    "export": (ExportCLI, "validate"),
    "plan": (PlanCLI, "fit"),
}


def _move_aside(root: Path) -> None:
    """A new run does not mix with one that is there already, nor replace it: the old folder gets a number."""
    if not (root / "config.yaml").exists():
        return
    number = next(i for i in itertools.count(1) if not root.with_name(f"{root.name}.{i}").exists())
    root.rename(root.with_name(f"{root.name}.{number}"))
    print(f"{root} held a run already; it is now {root}.{number}")


def _silence() -> None:
    """Notices of libraries about themselves, which no user of this package can act on."""
    for message in (
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*gradient_checkpointing.* is deprecated.*",
        "LightningCLI's args parameter is intended to run from within Python.*",
        "Total length of `list` across ranks is zero.*",
        "Experiment logs directory .* exists and is not empty.*",
        "Checkpoint directory .* exists and is not empty.*",
        ".*does not have many workers.*",
    ):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(word in record.getMessage() for word in ("litlogger", "litmodels", "TPU available"))
    )


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; errors a user can mend end the program with status 2 and a sentence instead of a traceback."""
    _silence()
    try:
        _run(None if args is None else list(args))
    except (ValueError, NonFiniteError) as error:
        if not _is_refusal(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _is_refusal(error: BaseException) -> bool:
    """Whether the package itself raised it: its own ValueErrors refuse an input, with a sentence that says which."""
    frames = traceback.extract_tb(error.__traceback__)
    made_by_dataclass = frames[-1].filename == "<string>"
    return Path(frames[-2 if made_by_dataclass else -1].filename).is_relative_to(Path(__file__).parent)


def _run(words: list[str] | None) -> None:
    given = sys.argv[1:] if words is None else words
    command = given[0] if given else "--help"
    if command in VERBS:
        _run_verb(VERBS[command], command, expanded(given[1:]) if command == "reproduce" else given[1:])
    elif command in TRAINER_COMMANDS or command in DERIVED:
        made, like = DERIVED.get(command, (CLI, command))
        made(
            PreferenceModule,
            PreferenceData,
            parser_class=Parser,
            seed_everything_default=1,
            auto_configure_optimizers=False,
            parser_kwargs={"prog": "python -m lightning_bnf", "default_env": False},
            args=[like, *given[1:]],
        )
    elif command in ("-h", "--help"):
        print(_overview())
    else:
        near = difflib.get_close_matches(command, [*TRAINER_COMMANDS, *DERIVED, *VERBS], n=1)
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
        "cache": "compute the reference's log-probs of a fit config's data once, for reference: cache",
        "export": "write the policy of a fit config's checkpoint as a folder, with --merge as one model",
        "plan": "memory and time that a fit config takes, from the model's config alone",
    } | {name: (verb.__doc__ or "").split("\n")[0] for name, verb in VERBS.items()}
    table = "\n".join(f"  {name:10s} {text}" for name, text in lines.items())
    return (
        "usage: python -m lightning_bnf COMMAND --config FILE [--key value ...]\n\n"
        f"commands:\n{table}\n\nEvery command explains its settings with --help."
    )
