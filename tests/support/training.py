"""Small modules and fits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import Loss
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.training.optimization import Optimization

Write = Callable[..., str]
"""A fixture that writes a data file and returns its path."""

FAST = Optimization(learning_rate=1e-2)


def loaded(policy: FullPolicy | LoRAPolicy, dtype: torch.dtype = torch.float32) -> FullPolicy | LoRAPolicy:
    policy.load()
    return policy.to(dtype)


def perturbed(module: PreferenceModule, scale: float = 0.05) -> PreferenceModule:
    """Move the policy away from its reference, so that ratios are not all 1."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.policy.trainable().values():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += scale * noise.to(parameter.dtype)
    return module


def full_module(folder: str, loss: Loss, dtype: torch.dtype = torch.float64) -> PreferenceModule:
    module = PreferenceModule(FullPolicy(folder), loss)
    module.configure_model()
    return perturbed(module.to(dtype))


def train(
    root: Path, module: PreferenceModule, data: PreferenceData, checkpoint: Path | None = None, **options: Any
) -> Trainer:
    settings: dict[str, Any] = {"max_epochs": 2, "enable_progress_bar": False, "enable_model_summary": False}
    settings["enable_checkpointing"] = any(isinstance(one, ModelCheckpoint) for one in options.get("callbacks", []))
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=root,
        logger=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **(settings | options),
    )
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    return trainer
