"""The commands that read a fit config: Lightning's own, and those that do a part of a fit."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lightning_bnf.callbacks import ExportPolicy, Fingerprints, GracefulShutdown, RunLogger, RunPlots, WriteCompletions
from lightning_bnf.costs.plan.command import Question, plan
from lightning_bnf.evaluation.comparison import rates_table
from lightning_bnf.evaluation.pass_rates import complete_and_verify, pass_rates, verified_prompts
from lightning_bnf.export.command import ExportOptions, export
from lightning_bnf.policies.reference.cached import CachedReference
from lightning_bnf.training.checkpoints import check_checkpoint, last_good
from lightning_bnf.training.strategies import AtomicCheckpointIO, FullySharded, parallelism_of
from lightning_bnf.training.support import precision_refusal


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
        refusal = precision_refusal(str(trainer.precision))
        if refusal:  # on a CPU Lightning would replace it with another in silence
            self.parser.error(refusal)
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
        parallelism_of(self.trainer.strategy)

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
            GracefulShutdown: lambda: GracefulShutdown(str(root / "checkpoints")),
            Fingerprints: Fingerprints,
            RunPlots: RunPlots,
            ExportPolicy: ExportPolicy,
        }
        checkpointing = self._get(self.config_init, "trainer").enable_checkpointing is not False
        return [
            make()
            for kind, make in standard.items()
            if kind not in given and (checkpointing or kind not in (ModelCheckpoint, GracefulShutdown))
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
