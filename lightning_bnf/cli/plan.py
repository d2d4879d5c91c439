"""The command `plan`."""

from lightning.pytorch.cli import LightningArgumentParser

from lightning_bnf.cli.trainer_commands import TrainerCommand, fields_of
from lightning_bnf.costs.plan.command import Question, plan


class Plan(TrainerCommand):
    """Say what memory and time a fit takes, from the model's config alone.

    Neither weights nor the devices are needed, and nothing is written. With --gpu_memory it says whether the run fits,
    and what would take less where it does not; the exit status then is 1.
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
        if not plan(self.model, self.datamodule, self.config_init["trainer"], question):
            raise SystemExit(1)
