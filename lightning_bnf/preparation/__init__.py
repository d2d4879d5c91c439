"""Preference data from a model's own samples; here are the scorers that a config of `prepare` may name."""

from lightning_bnf.preparation.armorm import ArmoRM
from lightning_bnf.preparation.rankers import PairRanker, PairRM
from lightning_bnf.preparation.reward_models import RewardModel
from lightning_bnf.preparation.scoring import Candidates, Scorer

__all__ = ["ArmoRM", "Candidates", "PairRM", "PairRanker", "RewardModel", "Scorer"]
