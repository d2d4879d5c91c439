"""Which callbacks a command gives its Trainer, and their order; what they do, in cli/test_main.py."""

from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import TQDMProgressBar

from lightning_bnf.callbacks import ExportPolicy, RunPlots, RunProgress, RunReport, ScorePrompts
from lightning_bnf.cli.run_parts import progress_of, turn


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
