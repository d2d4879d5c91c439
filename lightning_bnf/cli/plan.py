"""The command `plan`."""

from collections.abc import Sequence

from lightning.pytorch.cli import LightningArgumentParser

from lightning_bnf.cli.run_parts import fields_of
from lightning_bnf.cli.trainer_commands import TrainerCommand
from lightning_bnf.cli.words import switched_on
from lightning_bnf.costs.plan.command import plan
from lightning_bnf.costs.plan.question import Question
from lightning_bnf.costs.plan.sweep import sweep
from lightning_bnf.policies.sources import BUNDLED


class Plan(TrainerCommand):
    """Say what memory and time a fit takes, from the model's config alone.

    Neither weights nor the devices are needed, and nothing is written. The first line is the answer: whether it fits,
    and how long it takes, on the GPU that --gpu names or else on this machine. Where it does not fit, what would take
    less follows, and the exit status is 1. --sweep prints a table of models and methods instead.
    """

    checkpoint_help = "Read and not used: a resumed run takes what a new one takes."
    trainer_fields = (
        "accelerator",
        "strategy",
        "devices",
        "num_nodes",
        "precision",
        "max_epochs",
        "max_steps",
        "limit_train_batches",
    )

    def __init__(self, name: str, words: Sequence[str]):
        super().__init__(name, with_sweep(words))

    def add_command_arguments(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(Question, as_group=True)

    def before_instantiate_classes(self) -> None:
        for name in ("logger", "callbacks"):
            self.config["trainer"][name] = None
        super().before_instantiate_classes()

    def instantiate_classes(self) -> None:
        """Module and data, but no Trainer, which would look for the devices."""
        self.config_init = self.parser.instantiate_classes(self.config)
        self.model, self.datamodule = self.config_init["model"], self.config_init["data"]

    def run(self) -> None:
        question = Question(**fields_of(Question, self.config))
        if question.sweep:
            print(sweep(question))
        elif not plan(self.model, self.datamodule, self.config_init["trainer"], question):
            raise SystemExit(1)


def with_sweep(words: Sequence[str]) -> list[str]:
    """The words with what `--sweep` alone leaves out: that it is true, and a model, which nobody looks at."""
    found = switched_on(words, "sweep")
    named = any(word.startswith(("--model.source", "--model.policy", "--config")) for word in found)
    return found if named or "--sweep" not in found else [*found, "--model.source", BUNDLED]
