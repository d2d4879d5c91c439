"""Writes the trained policy as a folder that transformers, peft and vLLM load."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_bnf.module import PreferenceModule


@contextmanager
def finished_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well, and is removed when it does not.

    So a full disk or a kill leaves nothing half-written behind, and never harms what was there before.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        if folder.exists():
            previous = unfinished.with_name(unfinished.name + ".previous")
            folder.rename(previous)
            unfinished.rename(folder)
            shutil.rmtree(previous)
        else:
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def model_card(module: PreferenceModule, trainer: Trainer) -> str:
    """The README.md of the exported folder: how it was made, and how to load it."""
    loss, policy = module.loss, module.policy
    adapter = hasattr(policy, "adapted")
    load = "PeftModel.from_pretrained(base, folder)" if adapter else "AutoModelForCausalLM.from_pretrained(folder)"
    front = f"base_model: {policy.source}\nlibrary_name: {'peft' if adapter else 'transformers'}\ntags: [lightning_bnf]"
    return (
        f"---\n{front}\n---\n\n# {policy.source}, aligned with {type(loss).__name__}\n\n"
        f"- loss: `{loss}`\n"
        f"- optimizer steps: {trainer.global_step}\n"
        f"- peak learning rate: {module.optimization.learning_rate}\n"
        f"- load with: `{load}`\n\n"
        "The licence is the base model's. Trained with lightning_bnf; `config.yaml` of the run has every setting.\n"
    )


class ExportPolicy(Callback):
    """Writes `policy/` in the run folder when training ends: a peft folder, or a `save_pretrained` folder."""

    def __init__(self, folder: str = "policy"):
        """
        Args:
            folder: Name of the folder inside the run folder.
        """
        self.folder = folder

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, PreferenceModule)
        target = Path(trainer.default_root_dir) / self.folder
        with finished_folder(target) as folder:
            pl_module.policy.save(str(folder))
            (folder / "README.md").write_text(model_card(pl_module, trainer))
        rank_zero_info(f"The aligned model is in {target}")
