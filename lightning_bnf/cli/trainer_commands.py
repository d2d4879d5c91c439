"""The commands that read a fit's config: what they share, and fit."""

import inspect
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Literal

from filelock import BaseFileLock
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_bnf.callbacks import (
    EvenValidations,
    ExportPolicy,
    Fingerprints,
    GracefulShutdown,
    LastCheckpoints,
    RunEvents,
    RunLogger,
    RunPlots,
    RunReport,
)
from lightning_bnf.cli.commands import PROGRAM
from lightning_bnf.cli.defaults import announce, set_learning_rate, set_seeds, start_of
from lightning_bnf.cli.parser import NAMES_MODE, Parser
from lightning_bnf.cli.run_before import give_back, leave_files, moved_aside
from lightning_bnf.cli.run_parts import (
    SETTING_HELP,
    hide,
    listed,
    progress_of,
    say_crowded,
    trainer_refusal,
    turn,
)
from lightning_bnf.cli.saved_config import FILES, SaveConfig, set_run_folder
from lightning_bnf.cli.words import options, with_sources
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.arguments import Seed
from lightning_bnf.runtime.ownership import claim, hold
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.checkpoints import check_checkpoint, last_good, lies_in
from lightning_bnf.training.refusals import trainer_refusals
from lightning_bnf.training.strategies import AtomicCheckpointIO, FullySharded, parallelism_of


class TrainerParser(Parser, LightningArgumentParser):
    """The parser that LightningCLI fills, with our refusals."""


class TrainerCommand(LightningCLI):
    """A command that reads a fit's config. The docstring of a subclass is what its --help says it is for.

    LightningCLI builds the parsers of fit, validate, test and predict whichever of them is typed. Here a command has a
    parser of its own, and nobody waits for the others': it knows the command's name, purpose and checkpoint.
    """

    parser: Any
    checkpoint_help: ClassVar[str]
    """What --help says of `--ckpt_path`."""

    trainer_fields: ClassVar[tuple[str, ...] | None] = None
    """The Trainer's settings that the command uses, where these are not all: --help shows no others. They are read, as
    the config of a fit holds them."""

    writes_run_folder: ClassVar[bool] = True

    def __init__(self, name: str, words: Sequence[str]):
        self.name = name
        self.start = start_of(with_sources(options(name, words)))
        super().__init__(
            PreferenceModule,
            PreferenceData,
            SaveConfig,
            parser_class=TrainerParser,
            parser_kwargs={
                "prog": f"{PROGRAM} {name}",
                "usage": "%(prog)s [--config FILE] [--key value ...] [--allow MODULE]",
                "description": inspect.cleandoc(self.__doc__ or ""),
                "default_env": False,
                "parser_mode": NAMES_MODE,
            },
            args=[word for option in self.start.options for word in option.words()],
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def run(self) -> None:
        """Do what the command is for; everything is built by then."""
        raise NotImplementedError

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--seed_everything", type=Seed | bool, default=1, help="Everything random begins from it; true draws one."
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The package's fields first: they are what a run of ours is about."""
        self.add_command_arguments(parser)
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=self.checkpoint_help)
        parser.add_argument(
            "--weights_only",
            type=Literal[True],
            default=True,
            help="Checkpoints are read as tensors and numbers only, and never run code: true is all that is accepted.",
        )
        parser.add_lightning_class_args(PreferenceModule, "model")
        parser.add_lightning_class_args(PreferenceData, "data")
        parser.add_class_arguments(RunReport, "report", instantiate=True)
        parser.add_lightning_class_args(Trainer, "trainer")
        (parser.groups or {})["trainer"].title = "Lightning's Trainer"
        fixed = {"trainer.use_distributed_sampler": False, "trainer.num_sanity_val_steps": 0}
        fixed["trainer.enable_model_summary"] = False  # a table of three lines that says little
        parser.set_defaults(fixed | self.start.parser_defaults)
        for action in parser._actions:
            action.help = SETTING_HELP.get(action.dest, action.help)
        if not isinstance(self, Fit):
            hide(parser, "report.")
        if self.trainer_fields is not None:
            hide(parser, "trainer.", keep=self.trainer_fields)

    def add_command_arguments(self, parser: LightningArgumentParser) -> None:
        """Fields of this command alone; none unless a subclass adds some."""

    def _set_seed(self) -> None:
        set_seeds(self.config)
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        refusal = trainer_refusal(self.config["trainer"], self.name)
        if refusal:
            self.parser.error(refusal)
        set_learning_rate(self.config)
        set_run_folder(self.config, self.name, self.start.options)
        self._check_checkpoint()
        self.save_config_kwargs = {"overwrite": True, "config_filename": FILES.get(self.name)}

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config["trainer"].default_root_dir or "runs/latest")

    def _check_checkpoint(self) -> None:
        """A checkpoint is looked at before anything is built; `last` is the latest whole one of the run folder."""
        path = self.config["ckpt_path"]
        if path == "last":
            checkpoints = self.folder / "checkpoints"
            latest = last_good(checkpoints)
            if latest is None:
                self.no_checkpoint(checkpoints)
            self.config["ckpt_path"] = None if latest is None else str(latest)
        elif path is not None:
            check_checkpoint(Path(path))

    def no_checkpoint(self, checkpoints: Path) -> None:
        """`ckpt_path last` in a folder without any: the untrained model is not what was asked for."""
        self.parser.error(
            f"ckpt_path must be a checkpoint, or last in a run folder with one, got last; {checkpoints} "
            "holds none (trainer.default_root_dir names the run folder)"
        )

    def instantiate_classes(self) -> None:
        """Lightning's own; but refusals are told as they were raised, which jsonargparse buries in a list of all that
        a value could have been, and a logger's missing package is named in a sentence."""
        try:
            super().instantiate_classes()
        except (ModuleNotFoundError, ValueError) as error:  # jsonargparse makes one of the other
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, Refusal):
                cause = cause.__cause__ or cause.__context__
            if cause is not None:
                raise cause from error
            install = re.search(r"`(pip install .+?)`", str(error))
            loggers = ", ".join(logger.class_path for logger in listed(self.config["trainer"].logger))
            if install is None or not loggers:
                raise
            self.parser.error(f"trainer.logger {loggers}: it needs a package that is not installed; {install[1]}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Logs, checkpoints, plots and the exported policy all go below `trainer.default_root_dir`."""
        config = self.config_init["trainer"]
        if self.writes_run_folder and not config.fast_dev_run and getattr(rank_zero_only, "rank", 0) == 0:
            self.make_folder()
        kwargs |= {
            "default_root_dir": str(self.folder),
            "logger": self.loggers(config),
            "callbacks": sorted([*(config.callbacks or []), *self.callbacks(config)], key=turn),
        }
        if config.strategy != "fsdp2" and not isinstance(config.strategy, FullySharded) and not config.plugins:
            kwargs["plugins"] = [AtomicCheckpointIO()]
        try:
            with self.refusals(built=True):
                return super().instantiate_trainer(**kwargs)
        except Refusal:
            self.give_folder_back()
            raise

    def refusals(self, built: bool = False) -> AbstractContextManager[None]:
        """What Lightning refuses of the Trainer's settings in the block becomes a `Refusal`."""
        return trainer_refusals(vars(self.config_init["trainer"]), built=built, folder=self.folder)

    def give_folder_back(self) -> None:
        """Undo what `make_folder` did for a run that was refused."""

    def make_folder(self) -> None:
        """The run folder is new, empty, or a run's: `Refusal` for one with a stranger's files."""
        claim("trainer.default_root_dir", self.folder, "fit", signs=("lightning_bnf.",))

    def loggers(self, config: Any) -> list[Logger]:
        """None: a test's loggers would write over the metrics of the run."""
        return []

    def callbacks(self, config: Any) -> list[Callback]:
        """What the Trainer gets beside the config's own callbacks."""
        return progress_of(config)


class Fit(TrainerCommand):
    """Align a policy with a loss on preference data.

    A model and data are enough: `fit --model.source ID_OR_FOLDER --data.train FILE`. What is not named is chosen by
    device, policy and loss, and printed with the reasons. Names stand for the YAML files that come with the package:
    `--model.policy qlora`, `--model.loss dpo`, `--model.optimizer muon`, `--trainer ddp`, `--config quickstart`.

    All of a run goes into one folder, trainer.default_root_dir, or runs/latest: config.yaml (resolved, usable as it
    is), metrics.csv, checkpoints, plots, the page report.html and the aligned model. A run that is there already is
    moved aside, unless this one goes on from a checkpoint of it.
    """

    claimed, aside, left = False, None, list[Path]()
    lock: BaseFileLock | None = None

    checkpoint_help = (
        "Checkpoint to go on from: a file or sharded folder, or `last`, the latest whole one of the run folder; null "
        "begins at the first step."
    )

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        self.checkpoint, self.config["ckpt_path"] = self.config["ckpt_path"], None  # what is saved is of the whole run
        announce(self.start.shown, self.config)

    def run(self) -> None:
        try:
            say_crowded(self.trainer)
            parallelism_of(self.trainer.strategy)  # refuses here what each process that Lightning starts would
            with self.refusals():
                self.trainer.fit(self.model, self.datamodule, ckpt_path=self.checkpoint, weights_only=True)
        except Refusal:
            self.give_folder_back()
            raise
        finally:
            if self.lock is not None:
                self.lock.release()

    def no_checkpoint(self, checkpoints: Path) -> None:
        print(f"ckpt_path last: {checkpoints} holds no checkpoint yet, so the run begins at its first step")

    def give_folder_back(self) -> None:
        if self.claimed:
            give_back(self.folder, self.aside, self.left)

    def make_folder(self) -> None:
        """A new run does not mix with one that is there already, nor replace it: the old folder gets a number, also
        where the new run begins at another's checkpoint. One that is still at work keeps its folder."""
        super().make_folder()
        self.lock = hold("trainer.default_root_dir", self.folder)
        self.claimed = not lies_in(self.checkpoint, self.folder)
        if self.claimed and (self.folder / "config.yaml").exists():
            try:
                self.aside = moved_aside(self.folder, self.config)
                super().make_folder()
                self.left = leave_files(self.folder, self.aside, self.start.options)
            finally:
                self.lock.release()
            self.lock = hold("trainer.default_root_dir", self.folder)

    def loggers(self, config: Any) -> list[Logger]:
        """metrics.csv always, as plots, card and tables are made of it; beside it what the config names, or
        TensorBoard's events where it names nothing."""
        if config.fast_dev_run:  # it leaves nothing behind
            return []
        given = listed(config.logger)
        for logger in given:
            if isinstance(logger, CSVLogger) and Path(logger.log_dir).resolve() == self.folder.resolve():
                self.parser.error(
                    "trainer.logger must be a CSVLogger with another folder than the run's, whose metrics.csv it would "
                    f"write over, got {self.folder}"
                )
        if config.logger in (None, True):
            given = [RunEvents(self.folder)]
        return [RunLogger(self.folder), *given]

    def callbacks(self, config: Any) -> list[Callback]:
        """What every training run gets unless the config has its own."""
        if config.fast_dev_run:
            return []
        checkpoints = self.folder / "checkpoints"
        saving: dict[type, Callable[[], Callback]] = {
            ModelCheckpoint: lambda: LastCheckpoints(checkpoints),
            GracefulShutdown: lambda: GracefulShutdown(str(checkpoints)),
        }
        always: dict[type, Callable[[], Callback]] = {
            EvenValidations: EvenValidations,
            Fingerprints: Fingerprints,
            RunPlots: RunPlots,
            ExportPolicy: ExportPolicy,
            RunReport: self._report,
        }
        given = {type(callback) for callback in config.callbacks or []}
        standard = always if config.enable_checkpointing is False else saving | always
        return [*progress_of(config), *(make() for kind, make in standard.items() if kind not in given)]

    def _report(self) -> RunReport:
        report: RunReport = self.config_init["report"]
        report.chosen = [(chosen.key, str(chosen.value), chosen.reason) for chosen in self.start.shown]
        return report
