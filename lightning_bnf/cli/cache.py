"""The command `cache`."""

from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from lightning_bnf.cli.run_parts import fields_of
from lightning_bnf.cli.trainer_commands import TrainerCommand
from lightning_bnf.policies.reference.cached import CachedReference
from lightning_bnf.policies.reference.travel import Travel, pulled, push


class Cache(TrainerCommand):
    """Compute the reference's log-probs of a fit config's data once, for `reference: cache`.

    Everything of a fit that comes before its first step: the data are read, and what the cache lacks is computed. With
    --pull what another cache of the same reference holds is taken from there; --push adds the cache to another place.
    """

    checkpoint_help = "Must be null: the reference is the policy as it is before training."
    trainer_fields = (
        "accelerator",
        "strategy",
        "devices",
        "num_nodes",
        "precision",
        "enable_progress_bar",
        "default_root_dir",
    )

    def add_command_arguments(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(Travel, as_group=True)

    def before_instantiate_classes(self) -> None:
        self.config["model"]["reference"] = "cache"
        for name, value in (
            ("max_steps", 0),
            ("val_check_interval", 1.0),
            ("logger", None),
            ("callbacks", None),
            ("enable_checkpointing", False),
        ):
            self.config["trainer"][name] = value
        self.save_config_callback = None
        self.travel = Travel(**fields_of(Travel, self.config))
        if getattr(rank_zero_only, "rank", 0) == 0:
            self.travel.check()
            if self.travel.pull is not None:
                folder = pulled(self.travel, self.config["model"]["reference_cache"])
                self.config["model"]["reference_cache"] = str(folder)
        super().before_instantiate_classes()

    def run(self) -> None:
        with self.refusals():
            self.trainer.fit(self.model, self.datamodule, ckpt_path=self.config["ckpt_path"], weights_only=True)
        if not isinstance(self.model.reference, CachedReference):
            self.parser.error(f"model.loss {type(self.model.loss).__name__}: it needs no reference, so none is cached")
        cache = self.model.reference.cache
        print(f"{len(cache)} completions in {cache.folder}; train with --model.reference cache")
        if self.travel.push is not None and self.trainer.is_global_zero:
            push(self.travel, cache)
