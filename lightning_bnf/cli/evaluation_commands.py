"""The commands that go over a split without training: validate, test and predict."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback

from lightning_bnf.callbacks import WriteCompletions
from lightning_bnf.cli.run_parts import progress_of
from lightning_bnf.cli.saved_config import saved_run
from lightning_bnf.cli.trainer_commands import TrainerCommand
from lightning_bnf.evaluation.comparison import rates_table
from lightning_bnf.evaluation.pass_rates import complete_and_verify, pass_rates, verified_prompts
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.ownership import keep_earlier

BASE = "base"
"""As `--ckpt_path`: the policy as it is before training."""


class Evaluation(TrainerCommand):
    """What goes over a split without training, on one device."""

    checkpoint_help = (
        "Checkpoint of the policy: a file or sharded folder; `last`, the latest whole one of the run folder; or "
        "`base`, the policy as it is before training. null is `last` with the config that a run has saved, and `base` "
        "with another."
    )

    def _check_checkpoint(self) -> None:
        """What is measured is said: a run's config names a run, and before training is another policy than its."""
        if self.config["ckpt_path"] is None:
            self.config["ckpt_path"] = "last" if saved_run(self.start.options) else BASE
        if self.config["ckpt_path"] != BASE:
            super()._check_checkpoint()
            print(f"{self.name}: the policy of {self.config['ckpt_path']}")
            return
        there = (self.folder / "checkpoints").is_dir()
        more = f"; --ckpt_path last takes the latest checkpoint of {self.folder}" if there else ""
        print(f"{self.name}: the policy as it is before training{more}")

    def no_checkpoint(self, checkpoints: Path) -> None:
        self.parser.error(
            f"ckpt_path must be a checkpoint, last in a run folder with one, or {BASE} for the policy before training, "
            f"got last; {checkpoints} holds none (trainer.default_root_dir names the run folder)"
        )

    def run(self) -> None:
        if self.trainer.world_size > 1:
            self.parser.error(
                f"trainer.devices must be one device for {self.name}, got {self.trainer.world_size} devices"
            )
        measured = self.config["ckpt_path"]
        with self.refusals(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*Please add the following callbacks.*")  # to train on, not to measure
            getattr(self.trainer, self.name)(
                self.model,
                datamodule=self.datamodule,
                ckpt_path=None if measured == BASE else measured,
                weights_only=True,
            )

    def print_pass_rates(self, split: Literal["validation", "test"]) -> None:
        """Metrics as JSON; and, where rows of the split carry verifiers, completions and their pass rates."""
        trainer = self.trainer
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.write(f"{split}_metrics.json", metrics | {"ckpt_path": self.config["ckpt_path"]})
        prompts = verified_prompts(self.datamodule.split(split))
        if not prompts or not trainer.is_global_zero:
            return
        policy = self.model.policy
        model = policy.loaded.to(trainer.strategy.root_device)
        records = complete_and_verify(model, policy.tokenizer, prompts, progress=f"Completions of {split} prompts")
        rates = pass_rates(records)
        print(rates_table(rates))
        self.write(f"{split}_pass_rates.json", [dataclasses.asdict(rate) for rate in rates])

    def write(self, name: str, held: Any) -> None:
        """As a file of the run folder; one of another measurement that is there gets a number."""
        path = self.folder / name
        keep_earlier(path)
        write_text(path, json.dumps(held, indent=1) + "\n")


class Validate(Evaluation):
    """Measure a policy, or the plain base, on the validation split, with verifier pass rates.

    The run folder gets validation_metrics.json, and validation_pass_rates.json where the rows carry verifiers.
    """

    def run(self) -> None:
        super().run()
        self.print_pass_rates("validation")


class Test(Evaluation):
    """Measure a policy, or the plain base, on the test split, with verifier pass rates.

    The run folder gets test_metrics.json, and test_pass_rates.json where the rows carry verifiers.
    """

    __test__ = False  # pytest: this is no test

    def run(self) -> None:
        super().run()
        self.print_pass_rates("test")


class Predict(Evaluation):
    """Write completions of the test split's prompts as JSONL.

    They are drawn as model.generation says, and go into predictions_0.jsonl of the run folder, with the verifier's
    score where a row carries one.
    """

    def callbacks(self, config: Any) -> list[Callback]:
        return [*progress_of(config), WriteCompletions()]
