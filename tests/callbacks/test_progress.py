"""What a run says of itself, with a terminal and without one, by a clock that is given."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.clock import Clock
from support.training import FAST, Write, train

from lightning_bnf.callbacks import RunProgress
from lightning_bnf.callbacks.progress import StepMeans, fall_of_chosen, shown, tokens_of
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF, Loss, SimPO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy


def a_trainer(steps: int, **more: Any) -> Any:
    """What the callback asks of a Trainer, and nothing to forecast."""
    fixed = {
        "estimated_stepping_batches": steps,
        "global_step": 0,
        "world_size": 1,
        "should_stop": False,
        "sanity_checking": False,
        "is_global_zero": True,
        "callback_metrics": {},
        "num_val_batches": [2],
        "state": SimpleNamespace(fn="fit"),
    }
    return SimpleNamespace(**fixed | more)


def step(progress: RunProgress, trainer: Any, clock: Clock, seconds: float, **metrics: float) -> None:
    clock.now += seconds
    trainer.global_step += 1
    trainer.callback_metrics = {f"train/{name}": torch.tensor(value) for name, value in metrics.items()}
    progress.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]


def test_lines_at_the_first_and_last_step_and_every_30_seconds() -> None:
    """Six steps of 20 s, the first of 50 s: lines at 1, then at 3 and 5, when 30 s have passed, and at 6. The first
    step's time does not count for the others. Losses 2 and 4 have the mean 3."""
    clock, lines, trainer = Clock(), [], a_trainer(6)
    progress = RunProgress(clock=clock, bar=False, write=lines.append)
    progress.setup(trainer, None, "fit")  # type: ignore[arg-type]
    progress.on_train_start(trainer, None)  # type: ignore[arg-type]
    step(progress, trainer, clock, 50, loss=1.0)
    for loss in (2.0, 4.0, 5.0, 5.0, 6.0):
        step(progress, trainer, clock, 20, loss=loss)
    progress.on_train_end(trainer, None)  # type: ignore[arg-type]
    assert lines == [
        "step 1 of 6: loss 1, 0 tokens/s, 4.2 min left",
        "step 3 of 6: loss 3, 0 tokens/s, 1.0 min left",
        "step 5 of 6: loss 5, 0 tokens/s, 20 s left",
        "step 6 of 6: loss 6, 0 tokens/s",
        "trained: 6 steps in 2.5 min",
    ]


def test_the_expected_time_is_corrected_once() -> None:
    """100 steps of 6 s after one of 60 s: after the sixth, 94 are left, which take 9.4 min."""
    clock, lines, trainer = Clock(), [], a_trainer(100)
    progress = RunProgress(clock=clock, bar=False, write=lines.append)
    progress.on_train_start(trainer, None)  # type: ignore[arg-type]
    step(progress, trainer, clock, 60)
    for _ in range(20):
        step(progress, trainer, clock, 6)
    assert [line for line in lines if "measured" in line] == ["measured now, over 5 steps: 9.4 min of training left"]


def test_a_resumed_run_reckons_with_its_own_steps() -> None:
    clock, lines, trainer = Clock(), [], a_trainer(100, global_step=90)
    progress = RunProgress(clock=clock, bar=False, write=lines.append)
    progress.on_train_start(trainer, None)  # type: ignore[arg-type]
    step(progress, trainer, clock, 6)
    assert lines == ["step 91 of 100: 0 tokens/s, 54 s left"]


def test_validation_is_told_and_its_time_is_no_training_time() -> None:
    """A validation of two batches of 12 s; tokens a second are of the 30 s of the step alone."""
    clock, lines, trainer = Clock(), [], a_trainer(9)
    progress = RunProgress(clock=clock, bar=False, write=lines.append)
    progress.on_train_start(trainer, None)  # type: ignore[arg-type]
    step(progress, trainer, clock, 5)
    progress.on_validation_start(trainer, None)  # type: ignore[arg-type]
    for _ in range(2):
        clock.now += 12
        progress.on_validation_batch_end()
    trainer.callback_metrics = {"val/loss": torch.tensor(0.25), "val/rewards/accuracies": torch.tensor(0.75)}
    progress.on_validation_end(trainer, None)  # type: ignore[arg-type]
    progress._means.tokens = 600
    step(progress, trainer, clock, 30)
    assert lines[1:] == [
        "validation: 1 of 2 steps, 12 s; 12 s left",
        "validation: 2 of 2 steps, in 24 s",
        "validation at step 1: loss 0.25, accuracy 75 %, in 24 s",
        "step 2 of 9: 20 tokens/s, 6.3 min left",
    ]


def test_other_ranks_are_silent() -> None:
    clock, lines, trainer = Clock(), [], a_trainer(3, is_global_zero=False)
    progress = RunProgress(clock=clock, bar=True, write=lines.append)
    progress.setup(trainer, None, "fit")  # type: ignore[arg-type]
    progress.on_train_start(trainer, None)  # type: ignore[arg-type]
    progress.on_validation_start(trainer, None)  # type: ignore[arg-type]
    step(progress, trainer, clock, 40)
    progress.on_train_end(trainer, None)  # type: ignore[arg-type]
    assert lines == []


def test_metrics_as_words() -> None:
    pairs = {"loss": 0.123456, "rewards/margins": 0.5, "rewards/accuracies": 0.625, "rewards/chosen": 1.0}
    assert shown(pairs) == ["loss 0.1235", "reward margin +0.5", "accuracy 62 %"]
    assert shown(pairs, loss=False) == ["reward margin +0.5", "accuracy 62 %"]
    assert shown({"loss": 1.0, "rewards/chosen": 1.0, "rewards/rejected": -2.0}) == [
        "loss 1",
        "chosen +1",
        "rejected -2",
    ]
    assert shown({"logps_mean/chosen": -1.5, "logps_mean/rejected": -2.0}) == ["chosen -1.5", "rejected -2"]
    assert shown({}) == []


def test_chosen_answers_that_fell_are_named_at_the_end() -> None:
    """The last eight steps count: here their mean is -1.5 nats a token, though the run's first steps were better."""
    assert fall_of_chosen([-0.9, -1.0]) == fall_of_chosen([]) == ""
    clock, lines, trainer = Clock(), [], a_trainer(12)
    progress = RunProgress(clock=clock, bar=False, write=lines.append)
    progress.on_train_start(trainer, None)  # type: ignore[arg-type]
    for logratio in (0.0,) * 4 + (-1.0, -2.0) * 4:
        step(progress, trainer, clock, 1, **{"logratios_mean/chosen": logratio})
    progress.on_train_end(trainer, None)  # type: ignore[arg-type]
    assert lines[-1].startswith("chosen answers have lost 1.5 nats a token against the reference")


def test_means_are_over_the_steps_that_had_the_metric() -> None:
    means = StepMeans()
    means.add({"train/loss": torch.tensor(1.0), "val/loss": torch.tensor(9.0)}, tokens=10)
    means.add({"train/loss": torch.tensor(3.0), "train/rewards/margins": torch.tensor(0.5)}, tokens=20)
    assert means.tokens == 30
    assert means.take() == {"loss": 2.0, "rewards/margins": 0.5}
    assert (means.tokens, means.take()) == (0, {})
    assert tokens_of(None) == 0


@pytest.mark.forecast
@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "words"),
    [(BNF(), ("margin", "accuracy")), (SimPO(beta=2.0, gamma_beta_ratio=0.5), ("loss", "chosen", "rejected"))],
)
def test_with_a_plain_trainer(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, loss: Loss, words: tuple[str, ...]
) -> None:
    """25 rows of 8: four steps. What is expected is said before the first one, in numbers."""
    lines: list[str] = []
    data = PreferenceData(write_pairs(rows=25), write_pairs("v.jsonl"), examples_per_step=8, max_tokens=200)
    module = PreferenceModule(LoRAPolicy(tiny_folder, r=4), loss, optimization=FAST)
    progress = RunProgress(bar=False, write=lines.append)
    train(tmp_path, module, data, max_epochs=1, callbacks=[progress], enable_progress_bar=True)
    first, stop, begin, *_ = lines
    assert first.startswith("training on 25 rows, 5 for validation; 4 steps of 8 rows; about ")
    assert " GB a device and " in first
    assert "(assumed: " in first
    assert stop.startswith(f"everything goes to {tmp_path}; Ctrl-C saves a checkpoint")
    assert begin.startswith("step 1 of 4: ")
    assert ("loss" in begin) == ("loss" in words)
    assert all(f" {word} " in begin for word in words)
    assert " tokens/s" in begin
    assert any(line.startswith("validation at step 4: ") for line in lines)
    assert lines[-1].startswith("trained: 4 steps in ")


@pytest.mark.slow
def test_a_bar_on_a_terminal(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    data = PreferenceData(write_pairs(rows=25), examples_per_step=8, max_tokens=200)
    module = PreferenceModule(LoRAPolicy(tiny_folder, r=4), BNF(), optimization=FAST)
    progress = RunProgress(plan=False, bar=True)
    train(tmp_path, module, data, max_epochs=1, callbacks=[progress], enable_progress_bar=True)
    shown = capsys.readouterr().err
    assert "training on 25 rows, none for validation; 4 steps of 8 rows\n" in shown
    assert "| 4/4 [" in shown
    assert "margin " in shown
