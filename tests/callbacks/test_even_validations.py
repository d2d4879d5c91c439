"""A fraction as val_check_interval: validations at equal parts, the last after the epoch's last step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from support.training import FAST, Write, train

from lightning_bnf.callbacks.even_validations import EvenValidations, validated_steps
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy
from lightning_bnf.training.optimization import Optimization


@pytest.mark.parametrize(
    ("steps", "interval", "after"),
    [
        (30, 0.25, [8, 15, 22, 30]),
        (7, 0.25, [2, 4, 5, 7]),
        (3, 0.25, [1, 2, 3]),
        (1, 0.25, [1]),
        (8, 0.5, [4, 8]),
        (100, 0.3, [33, 67, 100]),
    ],
)
def test_the_last_is_after_the_last_step(steps: int, interval: float, after: list[int]) -> None:
    assert sorted(validated_steps(steps, interval)) == after


class Steps(Callback):
    """The steps after which there was a validation."""

    def __init__(self) -> None:
        self.after: list[int] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.after.append(trainer.global_step)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "after"),
    [
        ({"val_check_interval": 0.5, "max_epochs": 2}, [2, 5, 7, 10]),
        ({"val_check_interval": 0.25, "max_epochs": -1, "max_steps": 7}, [1, 2, 4, 5, 6, 7]),
        ({"val_check_interval": 0.5, "max_epochs": -1, "max_steps": 9}, [2, 5, 7, 9]),
        ({"val_check_interval": 0.5, "max_epochs": -1, "max_steps": 4}, [2, 4]),
        ({"val_check_interval": 2, "max_epochs": 1}, [2, 4, 5]),
        ({"val_check_interval": 2, "max_epochs": 2}, [2, 4, 7, 9, 10]),
        ({"val_check_interval": 4, "max_epochs": -1, "max_steps": 7}, [4, 7]),
        ({"val_check_interval": 4, "check_val_every_n_epoch": None, "max_epochs": 2}, [4, 8, 10]),
        ({"check_val_every_n_epoch": 2, "max_epochs": 3}, [10, 15]),
        ({"val_check_interval": 1.0, "max_epochs": 1}, [5]),
    ],
)
def test_a_run_of_five_steps_an_epoch(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, settings: dict[str, Any], after: list[int]
) -> None:
    module = PreferenceModule(LoRAPolicy(tiny_folder), BNF(), optimization=FAST)
    data = PreferenceData(write_pairs(), write_pairs("v.jsonl"), examples_per_step=1, max_tokens=256)
    steps = Steps()
    trainer = train(tmp_path, module, data, callbacks=[EvenValidations(), steps], **settings)
    assert steps.after == after
    assert trainer.check_val_every_n_epoch == settings.get("check_val_every_n_epoch", 1), "as it was"


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 4, 6, 7])
def test_a_resumed_run_ends_where_it_should(tmp_path: Path, tiny_folder: str, write_pairs: Write, step: int) -> None:
    """Seven steps, validated after 4 and 7; Lightning's own half of them is 3. Saved at a validation and before one;
    from the last step there is nothing left to do."""
    ends = []
    for name, start in (("whole", None), ("resumed", tmp_path / f"whole/step={step}.ckpt")):
        steps = Steps()
        saving = ModelCheckpoint(tmp_path / name, filename="{step}", every_n_train_steps=3, save_top_k=-1)
        at_validations = ModelCheckpoint(tmp_path / name, filename="{step}", save_top_k=-1)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            val_check_interval=0.5,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            default_root_dir=tmp_path,
            callbacks=[EvenValidations(), steps, saving, at_validations],
        )
        module = PreferenceModule(LoRAPolicy(tiny_folder, dropout=0.1), BNF(), optimization=FAST)
        data = PreferenceData(write_pairs(rows=7), write_pairs("v.jsonl"), examples_per_step=1, max_tokens=256)
        seed_everything(1)
        trainer.fit(module, data, ckpt_path=start)
        weights = {key: value.clone() for key, value in module.policy.trainable().items()}
        ends.append((trainer.global_step, [after for after in steps.after if after > step], weights))
    (wanted_step, wanted_after, wanted), (reached, after, weights) = ends
    assert (reached, after) == (wanted_step, wanted_after) == (7, [4, 7][(step >= 4) + (step >= 7) :])
    assert all(torch.equal(weights[key], value) for key, value in wanted.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "first", "longer", "after"),
    [
        ({"val_check_interval": 4}, {"max_steps": 6}, {"max_steps": 10}, [9, 10]),
        ({"val_check_interval": 4}, {"max_steps": 7}, {"max_steps": 9}, [9]),
        ({"val_check_interval": 0.5}, {"max_steps": 6}, {"max_steps": 9}, [7, 9]),
        ({"check_val_every_n_epoch": 2}, {"max_epochs": 1}, {"max_epochs": 3}, [10, 15]),
        ({"check_val_every_n_epoch": 2}, {"max_epochs": 1}, {"max_epochs": 1}, []),
        ({"val_check_interval": 4, "check_val_every_n_epoch": None}, {"max_epochs": 1}, {"max_epochs": 2}, [8, 10]),
    ],
)
def test_a_longer_run_goes_on_from_the_last_step_of_a_shorter(
    tmp_path: Path,
    tiny_folder: str,
    write_pairs: Write,
    settings: dict[str, Any],
    first: dict[str, int],
    longer: dict[str, int],
    after: list[int],
) -> None:
    """Five steps an epoch; the shorter run's last step, at which it was validated and saved, is one like others."""

    def run(name: str, length: dict[str, int], checkpoint: Path | None = None) -> tuple[PreferenceModule, Steps]:
        steps = Steps()
        constant = Optimization(learning_rate=1e-2, schedule="constant", warmup_ratio=0.0)
        module = PreferenceModule(LoRAPolicy(tiny_folder), BNF(), optimization=constant)
        data = PreferenceData(write_pairs(), write_pairs("v.jsonl"), examples_per_step=1, max_tokens=256)
        saving = ModelCheckpoint(tmp_path / name, filename="{step}", save_top_k=-1)
        given = {"max_epochs": -1} | settings | length
        seed_everything(1)
        train(tmp_path, module, data, checkpoint, callbacks=[EvenValidations(), steps, saving], **given)
        return module, steps

    whole, _ = run("whole", longer)
    _, short = run("short", first)
    rest, steps = run("rest", longer, tmp_path / f"short/step={short.after[-1]}.ckpt")
    assert steps.after == after
    assert rest.trainer.global_step == whole.trainer.global_step
    wanted, found = whole.policy.trainable(), rest.policy.trainable()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
