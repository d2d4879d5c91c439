"""The checkpoints of a run: the last two, whoever wrote those before."""

from pathlib import Path

import pytest
from support.training import FAST, Write, train

from lightning_bnf.callbacks import EvenValidations, LastCheckpoints
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy

pytestmark = pytest.mark.slow


def test_two_are_kept_over_all_runs_in_a_folder(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    """Three times gone on with, and once saved in between, as Ctrl-C does; files of other names stay. Of five steps an
    epoch the second and the fourth are validated, and the last of a run."""
    folder = tmp_path / "checkpoints"

    def run(steps: int, checkpoint: Path | None = None) -> list[str]:
        module = PreferenceModule(LoRAPolicy(tiny_folder, r=2), BNF(), optimization=FAST)
        data = PreferenceData(write_pairs(), write_pairs("v.jsonl"), examples_per_step=1, max_tokens=256)
        callbacks = [EvenValidations(), LastCheckpoints(folder)]
        given = {"max_epochs": -1, "max_steps": steps, "val_check_interval": 2, "callbacks": callbacks}
        trainer = train(tmp_path, module, data, checkpoint, **given)
        if steps == 6:
            trainer.save_checkpoint(folder / "step=5.ckpt")
        return sorted(path.name for path in folder.iterdir())

    assert run(4) == ["step=2.ckpt", "step=4.ckpt"]
    (folder / "best.ckpt").touch()
    assert run(6, folder / "step=4.ckpt") == ["best.ckpt", "step=4.ckpt", "step=5.ckpt", "step=6.ckpt"]
    assert run(9, folder / "step=6.ckpt") == ["best.ckpt", "step=7.ckpt", "step=9.ckpt"]
    assert run(10, folder / "step=9.ckpt") == ["best.ckpt", "step=10.ckpt", "step=9.ckpt"]
    (folder / "step=3.ckpt").touch()
    (folder / "step=99.ckpt").touch()
    kept = ["best.ckpt", "step=10.ckpt", "step=12.ckpt", "step=99.ckpt"]
    assert run(12, folder / "step=10.ckpt") == kept, "what lies beyond the step at hand is not this run's to remove"
