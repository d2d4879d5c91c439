"""The checkpoints that a run keeps."""

import re
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

_NAME = re.compile(r"step=(\d+)\.ckpt")


class LastCheckpoints(ModelCheckpoint):
    """Saves at every validation, or every epoch where there is none, as `step=N.ckpt`, and keeps the last, and the one
    before in case that one is broken: of all that lie in the folder, as those that a run was stopped at, or went on
    from, are Lightning's own list's no longer.
    """

    def __init__(self, folder: Path):
        """
        Args:
            folder: Where checkpoints are, of this run alone.
        """
        self.folder = folder
        named = {"filename": "{step}", "enable_version_counter": False}
        super().__init__(folder, monitor="step", mode="max", save_top_k=2, **named)  # type: ignore[arg-type]

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        found = {path: int(match[1]) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))}
        so_far = [path for path, step in found.items() if step <= trainer.global_step]  # later ones are another run's
        for path in sorted(so_far, key=found.__getitem__)[:-2] if trainer.is_global_zero else ():
            trainer.strategy.remove_checkpoint(str(path))
