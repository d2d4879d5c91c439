"""Which callbacks a command gives its Trainer, and their order; what they do, in cli/test_main.py."""

from types import SimpleNamespace
from typing import Any

import pytest
from jsonargparse import Namespace
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import TQDMProgressBar

from lightning_bnf.callbacks import ExportPolicy, RunPlots, RunProgress, RunReport, ScorePrompts
from lightning_bnf.cli.run_parts import progress_of, say_crowded, trainer_refusal, turn


def test_what_takes_long_at_the_end_comes_last() -> None:
    """Plots and policy, then minutes of completions, then the page that shows them."""
    given = [RunReport(), ScorePrompts(), RunPlots(), ExportPolicy()]
    assert [type(callback) for callback in sorted(given, key=turn)] == [RunPlots, ExportPolicy, ScorePrompts, RunReport]


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 1),
        ({"enable_progress_bar": False}, 0),
        ({"barebones": True}, 0),
        ({"callbacks": [TQDMProgressBar()]}, 0),
        ({"callbacks": [RunPlots()]}, 1),
    ],
)
def test_signs_of_life_unless_the_config_has_a_bar_or_wants_none(settings: dict[str, Any], count: int) -> None:
    plain: dict[str, Any] = {"callbacks": None, "enable_progress_bar": None, "barebones": False}
    found = progress_of(SimpleNamespace(**plain | settings))
    assert [type(callback) for callback in found] == [RunProgress] * count


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"gradient_clip_val": 1.0},
            "trainer.gradient_clip_val must be null, got 1.0; model.optimization.",
        ),
        ({"accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches must be 1, got 2; data.examples_per_step"),
        ({"use_distributed_sampler": True}, "trainer.use_distributed_sampler must be false, got true; the step plan"),
        ({"val_check_interval": 0}, "trainer.val_check_interval must be a number > 0 or null, got 0"),
        ({"val_check_interval": {}}, "trainer.val_check_interval must be a number > 0 or null, got {}"),
        ({"check_val_every_n_epoch": -1}, "trainer.check_val_every_n_epoch must be a number > 0 or null, got -1"),
        ({"default_root_dir": "s3://b/x"}, "trainer.default_root_dir must be a folder of this machine, got s3://b/x"),
        ({"precision": "16-mixed"}, "precision must be 32-true, bf16-mixed or bf16-true, got 16-mixed"),
        ({"max_steps": 0}, "trainer.max_steps must be a number > 0 with fit, which would train nothing, got 0"),
        ({"max_epochs": 0}, "trainer.max_epochs must be a number > 0 with fit, which would train nothing, got 0"),
        ({"val_check_interval": 0.25, "check_val_every_n_epoch": None}, None),
    ],
    ids=str,
)
def test_what_a_trainer_here_is_not_told(settings: dict[str, Any], sentence: str | None) -> None:
    plain = {"gradient_clip_val": None, "accumulate_grad_batches": 1, "use_distributed_sampler": False}
    plain |= {"val_check_interval": 1.0, "check_val_every_n_epoch": 1, "default_root_dir": None, "precision": "32-true"}
    plain |= {"max_steps": -1, "max_epochs": None, "limit_train_batches": None}
    refusal = trainer_refusal(Namespace(plain | settings), "fit")
    assert refusal == sentence if sentence is None else str(refusal).startswith(sentence)
    if {"max_steps", "max_epochs"} & set(settings):
        assert trainer_refusal(Namespace(plain | settings), "cache") is None, "its Trainer trains nothing"


def test_a_fit_that_trains_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """As tables have a base among what is trained."""
    plain = {"gradient_clip_val": None, "accumulate_grad_batches": 1, "use_distributed_sampler": False}
    plain |= {"val_check_interval": 1.0, "check_val_every_n_epoch": 1, "default_root_dir": None, "precision": "32-true"}
    assert (
        trainer_refusal(Namespace(plain | {"max_steps": -1, "max_epochs": 1, "limit_train_batches": 0}), "fit") is None
    )
    assert "limit_train_batches is 0: nothing is trained, and what is exported is the base" in capsys.readouterr().err


def test_more_processes_than_cores_are_pointed_out(capsys: pytest.CaptureFixture[str]) -> None:
    trainer: Any = SimpleNamespace(accelerator=CPUAccelerator(), num_devices=10_000, is_global_zero=True)
    say_crowded(trainer)
    assert "trainer.devices is 10000, more than the " in capsys.readouterr().err
    trainer.num_devices = 1
    say_crowded(trainer)
    assert capsys.readouterr().err == ""
