"""WildBench's reward: pairs with a baseline, a slight win by a longer answer being a tie.

Verdicts A++, A+, A=B, B+, B++ are 1, 1/2, 0, -1/2, -1 for the model's side. With K, a slight win is a tie if the winner
is longer by more than K characters. The mean over three baselines (strong, middle, weak) is the mixture. 95 %
intervals are bootstraps over tasks.
"""

from collections.abc import Mapping

import numpy as np

from lightning_bnf.evaluation.judged.games import Games, draws_of_questions
from lightning_bnf.evaluation.judged.wildbench_score import Scored
from lightning_bnf.evaluation.statistics.intervals import Interval
from lightning_bnf.runtime.refusal import Refusal


def rewards(games: Games, k: float | None = None) -> np.ndarray:
    """(N,) reward of each game in [-1, 1]; NaN without a verdict. Lengths in the style are characters here; `k` None
    takes none into account."""
    reward = games.verdict / 2
    if k is None:
        return reward
    longer = games.style[:, 0] - games.base_style[:, 0]
    by_length = (np.abs(games.verdict) == 1) & (np.sign(games.verdict) * longer > k)
    return np.where(by_length, 0.0, reward)


def mean_reward(games: Games, k: float | None = None, seed: int = 0, resamples: int = 2000) -> Scored:
    """The mean reward times 100 of one model's games against one baseline."""
    return mixture({"": games}, k, seed, resamples)


def mixture(by_baseline: Mapping[str, Games], k: float | None = None, seed: int = 0, resamples: int = 2000) -> Scored:
    """The mean over baselines of mean rewards, times 100. Draws take a task's games against all baselines together.

    Raises `Refusal` where a baseline's games are of several models, or none has a verdict.
    """
    values, draws = [], []
    tasks, place = np.unique(np.concatenate([own.question for own in by_baseline.values()]), return_inverse=True)
    counts = draws_of_questions(tasks, seed, resamples)
    start = missing = 0
    for name, own in by_baseline.items():
        reward = rewards(own, k)
        known = ~np.isnan(reward)
        if len(own.pool) != 1 or not known.any():
            raise Refusal(f"games against {name!r} must be of one model, with a verdict, got {len(own.pool)} models")
        drawn = counts[:, place[start : start + len(own)]][:, known]
        start += len(own)
        missing += int((~known).sum())
        values.append(reward[known].mean())
        with np.errstate(invalid="ignore"):
            draws.append(drawn @ reward[known] / drawn.sum(axis=1))
    low, high = np.nanquantile(100 * np.mean(draws, axis=0), [0.025, 0.975])
    return Scored(len(tasks), missing, Interval(100 * float(np.mean(values)), float(low), float(high)))
