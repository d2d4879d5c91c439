"""The command plan: its help. What it prints is in costs/plan/test_command.py."""

import pytest
from support.commands import help_of


def test_help_shows_the_question_and_what_the_plan_depends_on(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys, "plan")
    assert shown.index(" --gpu_memory ") < shown.index(" --model.policy ")
    for name in ("trainer.strategy", "trainer.max_epochs", "trainer.limit_train_batches", "data.max_tokens"):
        assert f" --{name} " in shown
    assert not any(f" --trainer.{name}" in shown for name in ("logger", "callbacks", "profiler", "default_root_dir"))
