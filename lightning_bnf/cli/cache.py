"""The command `cache`."""

from lightning_bnf.cli.trainer_commands import TrainerCommand
from lightning_bnf.policies.reference.cached import CachedReference


class Cache(TrainerCommand):
    """Compute the reference's log-probs of a fit config's data once, for `reference: cache`.

    Everything of a fit that comes before its first step: the data are read, and what the cache lacks is computed.
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
        super().before_instantiate_classes()

    def run(self) -> None:
        with self.refusals():
            self.trainer.fit(self.model, self.datamodule, ckpt_path=self.config["ckpt_path"], weights_only=True)
        if not isinstance(self.model.reference, CachedReference):
            self.parser.error(f"model.loss {type(self.model.loss).__name__}: it needs no reference, so none is cached")
        cache = self.model.reference.cache
        print(f"{len(cache)} completions in {cache.folder}; train with --model.reference cache")
