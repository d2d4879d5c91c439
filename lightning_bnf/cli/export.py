"""The command `export`."""

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.cli import LightningArgumentParser

from lightning_bnf.cli.run_parts import fields_of, hide
from lightning_bnf.cli.trainer_commands import TrainerCommand
from lightning_bnf.cli.words import switched_on
from lightning_bnf.export.command import ExportOptions, export


class Export(TrainerCommand):
    """Write the policy of a run's checkpoint as a folder, with --merge as one model.

    The run is told by the config that lies in its folder. Its model and data, which `fit --help` explains, are read
    from there; the validation rows, or the training rows where there are none, are what a merge is measured on.
    """

    checkpoint_help = (
        "The checkpoint: a file or sharded folder; null and `last` are the latest whole one of the run folder."
    )
    trainer_fields = ("accelerator", "default_root_dir")
    writes_run_folder = False

    def __init__(self, name: str, words: Sequence[str]):
        super().__init__(name, switched_on(words, "merge"))

    def add_command_arguments(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(ExportOptions, as_group=True)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_core_arguments_to_parser(parser)
        for prefix in ("model", "data"):
            hide(parser, prefix)

    def before_instantiate_classes(self) -> None:
        self.config["ckpt_path"] = self.config["ckpt_path"] or "last"
        for name, value in (
            ("devices", 1),
            ("num_nodes", 1),
            ("strategy", "auto"),
            ("callbacks", None),
            ("logger", None),
        ):
            self.config["trainer"][name] = value
        super().before_instantiate_classes()

    def run(self) -> None:
        options = ExportOptions(**fields_of(ExportOptions, self.config))
        export(self.model, self.datamodule, self.trainer, Path(self.config["ckpt_path"]), options)
