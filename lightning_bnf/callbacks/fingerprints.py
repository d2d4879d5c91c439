"""What a run began with, so that results can be told apart by what made them."""

import json
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.tables import Table
from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.fingerprints import file_fingerprint, weights_fingerprint
from lightning_bnf.runtime.shipped import here_or_shipped


class Fingerprints(Callback):
    """Writes `fingerprints.json` before the first step: 16 hex digits each of the base's weights (`model`) and of the
    contents of every local data file, by its path, and of rows in memory, by their split."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, PreferenceData):
            return
        assert isinstance(pl_module, PreferenceModule)
        policy = pl_module.policy
        found = {}
        # On every rank: sharded weights are read by all of them together.
        if trainer.global_step == 0 or policy.adapters:  # trained weights are no base
            found["model"] = weights_fingerprint(policy.causal_lm, frozen_only=policy.adapters)
        if not trainer.is_global_zero:
            return
        sources = [source for split in data.sources.values() for source in split]
        files = {source: here_or_shipped(source, "data") for source in sources if isinstance(source, str)}
        found |= {name: file_fingerprint(file) for name, file in sorted(files.items()) if file.is_file()}
        found |= {source.name: source.fingerprint() for source in sources if isinstance(source, Table)}
        write_text(Path(trainer.default_root_dir) / "fingerprints.json", json.dumps(found, indent=1) + "\n")
