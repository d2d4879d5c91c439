"""The command export: its help. What it writes is in export/test_command.py."""

import pytest
from support.commands import help_of

from lightning_bnf.cli.run_parts import fields_of
from lightning_bnf.export.command import ExportOptions


def test_help_shows_what_is_exported_and_not_how_it_was_trained(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys, "export")
    for name in ("folder", "merge", "dtype", "max_shard_size", "rows", "ckpt_path", "trainer.accelerator"):
        assert f" --{name} " in shown
    assert not any(f"--{name}" in shown for name in ("model", "data", "trainer.max_epochs", "trainer.strategy"))


def test_options_are_picked_from_the_config() -> None:
    config = {"folder": "f", "merge": True, "dtype": "float32", "max_shard_size": "1GB", "rows": 2, "model": None}
    config |= {"push": "me/m", "public": True}
    assert ExportOptions(**fields_of(ExportOptions, config)) == ExportOptions(
        "f", True, "float32", "1GB", 2, "me/m", True
    )
