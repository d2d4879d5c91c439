"""Preference data from a model's own samples; here are the scorers that a config of `prepare` may name.

They are imported when they are asked for: their models take seconds, which a command that has none need not wait.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning_bnf.preparation.scoring import Candidates, Scorer

if TYPE_CHECKING:
    from lightning_bnf.preparation.armorm import ArmoRM
    from lightning_bnf.preparation.rankers import PairRanker, PairRM
    from lightning_bnf.preparation.reward_models import RewardModel

__all__ = ["ArmoRM", "Candidates", "PairRM", "PairRanker", "RewardModel", "Scorer"]

_MODULES = {"ArmoRM": "armorm", "PairRM": "rankers", "PairRanker": "rankers", "RewardModel": "reward_models"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
