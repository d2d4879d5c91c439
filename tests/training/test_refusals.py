"""What Lightning refuses comes out as a sentence with setting and value; what is a bug stays one."""

from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.refusals import trainer_refusals


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"devices": 0}, "devices"),
        ({"devices": -1}, "devices"),
        ({"devices": "x"}, "devices"),
        ({"precision": "transformer-engine"}, "precision"),
        ({"precision": "8-bit"}, "precision"),
        ({"strategy": "deepspeed"}, "strategy"),
        ({"strategy": "nothing"}, "strategy"),
        ({"strategy": "fsdp"}, "strategy"),
        ({"accelerator": "nothing"}, "accelerator"),
        ({"limit_train_batches": 1.5}, "limit_train_batches"),
        ({"max_steps": -5}, "max_steps"),
        ({"max_epochs": -5}, "max_epochs"),
        ({"num_nodes": 0}, "num_nodes"),
        ({"max_time": "soon"}, "max_time"),
        ({"profiler": "nothing"}, "profiler"),
        ({"fast_dev_run": -1}, "fast_dev_run"),
        ({"reload_dataloaders_every_n_epochs": -1}, "reload_dataloaders_every_n_epochs"),
        ({"barebones": True, "enable_progress_bar": True}, "barebones"),
    ],
    ids=str,
)
def test_a_setting_that_no_trainer_takes_is_named_with_its_value(settings: dict[str, Any], named: str) -> None:
    given = {"accelerator": "cpu", "logger": False} | settings
    with (
        pytest.raises(Refusal, match=rf"^trainer\.{named} must be what Lightning accepts, got {settings[named]!r}: "),
        trainer_refusals(given),
    ):
        Trainer(**given)


def test_without_a_name_the_sentence_is_lightnings() -> None:
    with (
        pytest.raises(Refusal, match=r"^trainer must be what Lightning accepts, got something else: No such a b$"),
        trainer_refusals({"devices": 1}),
    ):
        raise TypeError("No such\n  a b")


def test_while_it_runs_only_what_is_about_a_setting_is_refused() -> None:
    """An error of a loss or a callback that happens to speak of devices is a bug, and keeps its traceback."""
    settings = {"val_check_interval": 100, "devices": 1}
    said = " `val_check_interval` (100) must be less than or equal to the number of the training batches (3)"
    with pytest.raises(Refusal, match="got 100: `val_check"), trainer_refusals(settings, built=False):
        raise ValueError(said)
    with pytest.raises(Refusal, match="devices"), trainer_refusals(settings, built=False):
        raise MisconfigurationException("Set devices to 2")
    for bug in (ValueError("all tensors must be on the same devices"), ZeroDivisionError("x"), TypeError("")):
        with pytest.raises(type(bug)) as raised, trainer_refusals(settings, built=False):
            raise bug
        assert raised.value is bug
    with pytest.raises(Refusal) as kept, trainer_refusals(settings):
        raise Refusal("devices must be ours")
    assert str(kept.value) == "devices must be ours"
