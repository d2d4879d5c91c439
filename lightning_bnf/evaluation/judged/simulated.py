"""Simulated judges of known strength, position bias, length bias and noise: do intervals hold the truth?

What a judge says of a game is a latent number, cut into five verdicts:

    latent = advantage + spread * question + length_bias * x + position_bias * (1 where the model is first, else -1)
             + noise * game           question, game ~ N(0, 1);   x = (l - l_base) / (l + l_base + 1)

A question's games share its draw, as they do with real judges. The truth of a statistic is its value on a hundred
thousand questions of the same judge; of length control it is that of the same judge without its length bias.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import expit

from lightning_bnf.evaluation.judged import alpaca_eval, arena_hard_2024, arena_hard_2025, wildbench_score
from lightning_bnf.evaluation.judged.games import Games
from lightning_bnf.evaluation.statistics.intervals import Interval

_MANY = 100_000
_CHARACTERS = 800.0  # a difference of lengths that a biased judge sees clearly
_DRAWS = 1_000_000  # added to a seed, so that draws of intervals are not the sample's own
_CUTS = (-1.0, -0.15, 0.15, 1.0)


@dataclass(frozen=True)
class Judge:
    """In units of the noise of a game. longer: how much longer the model's answers are, on a log scale."""

    advantage: float = 0.0
    position_bias: float = 0.0
    length_bias: float = 0.0
    spread: float = 1.0
    noise: float = 0.5
    longer: float = 0.4


@dataclass(frozen=True)
class Estimate:
    """What a statistic says of a sample: its own published interval, and ours over questions."""

    published: Interval
    ours: Interval


Statistic = Callable[[Judge, int, int], Estimate]


def games(judge: Judge, questions: int, seed: int) -> Games:
    """Two games a question against the baseline."""
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(5.5, 0.5, questions))
    length = base * np.exp(rng.normal(judge.longer, 0.3, questions))
    latent = judge.advantage + judge.spread * rng.normal(size=questions)
    latent = (latent + judge.length_bias * (length - base) / (length + base + 1)).repeat(2)
    first = np.tile([False, True], questions)
    latent = latent + judge.position_bias * np.where(first, 1, -1) + judge.noise * rng.normal(size=2 * questions)
    none = np.zeros((2 * questions, 3))
    return Games(
        np.arange(questions).repeat(2),
        np.full(2 * questions, "model"),
        first,
        np.searchsorted(_CUTS, latent) - 2.0,
        np.column_stack([length.repeat(2), none]),
        np.column_stack([base.repeat(2), none]),
    )


def scores(judge: Judge, tasks: int, seed: int) -> np.ndarray:
    """WildBench's, 1 to 10 of each task: (tasks,)."""
    drawn = np.random.default_rng(seed).normal(size=tasks) * np.hypot(judge.spread, judge.noise)
    return np.clip(np.round(6 + 2 * (judge.advantage + drawn)), 1, 10)


def preferences(judge: Judge, instructions: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AlpacaEval's, in [1, 2], and both answers' lengths; the order of each is drawn."""
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(7, 0.5, instructions)).round()
    length = (base * np.exp(rng.normal(judge.longer, 0.3, instructions))).round()
    place = judge.position_bias * rng.choice([-1, 1], instructions)
    x = np.tanh((length - base) / _CHARACTERS)
    own = judge.spread * rng.normal(size=instructions) + judge.noise * rng.normal(size=instructions)
    return 1 + expit(2 * (judge.advantage + judge.length_bias * x + place + own)), length, base


def _of_2024(judge: Judge, questions: int, seed: int) -> Estimate:
    (row,) = arena_hard_2024.win_rates(games(judge, questions, seed), seed + _DRAWS, 500)
    return Estimate(row.published, row.rate)


def _of_2025(judge: Judge, questions: int, seed: int) -> Estimate:
    (row,) = arena_hard_2025.scores(games(judge, questions, seed), seed + _DRAWS, 500)
    return Estimate(row.published, row.rate)


def _controlled(judge: Judge, questions: int, seed: int) -> Estimate:
    drawn = games(judge, questions, seed)
    (published,) = arena_hard_2024.length_controlled(drawn, seed + _DRAWS, 2)
    (equal,) = arena_hard_2024.at_equal_lengths(drawn, seed + _DRAWS, 200)
    return Estimate(published.published, equal.rate)


def _of_wildbench(judge: Judge, tasks: int, seed: int) -> Estimate:
    value = wildbench_score.adjusted_score(scores(judge, tasks, seed), seed + _DRAWS, 500).value
    return Estimate(value, value)


def _of_alpaca(judge: Judge, instructions: int, seed: int) -> Estimate:
    rate = alpaca_eval.win_rate(preferences(judge, instructions, seed)[0]).rate
    return Estimate(rate, rate)


def _alpaca_controlled(judge: Judge, instructions: int, seed: int) -> Estimate:
    found = alpaca_eval.length_controlled(*preferences(judge, instructions, seed), seed=seed + _DRAWS, resamples=200)
    half = 1.959964 * found.error
    return Estimate(Interval(found.rate.value, found.rate.value - half, found.rate.value + half), found.rate)


STATISTICS: dict[str, tuple[Statistic, float]] = {
    "Arena-Hard 2024 WR": (_of_2024, 0.95),
    "Arena-Hard 2024 LC": (_controlled, 0.95),
    "Arena-Hard 2025 score": (_of_2025, 0.90),
    "WildBench score": (_of_wildbench, 0.95),
    "AlpacaEval 2 win rate": (_of_alpaca, 0.95),
    "AlpacaEval 2 LC": (_alpaca_controlled, 0.95),
}
"""Name -> the statistic, and the rate at which its intervals should hold the truth. LC's published interval is of the
fit read at the pool's mean length, ours at equal lengths."""


@lru_cache(maxsize=64)
def truth(name: str, judge: Judge) -> float:
    """The statistic on very many questions."""
    fair = replace(judge, length_bias=0.0)
    if name == "Arena-Hard 2024 LC":
        drawn = games(fair, _MANY, 1)
        return float(np.average(drawn.outcome, weights=drawn.weight))
    if name.startswith("Arena-Hard"):
        drawn = games(judge, _MANY, 1)
        return float(np.average(drawn.outcome, weights=drawn.weight))
    if name.startswith("WildBench"):
        return float((scores(judge, _MANY, 1).mean() - 5) * 20)
    return 100 * float((preferences(fair if name.endswith("LC") else judge, _MANY, 1)[0] - 1).mean())


def coverage(name: str, judge: Judge, questions: int = 100, simulations: int = 500, seed: int = 0) -> dict[str, float]:
    """The shares of simulations whose published interval, and whose own, hold the truth; and the mean value."""
    statistic, _ = STATISTICS[name]
    wanted = truth(name, judge)
    found = [statistic(judge, questions, seed + 10_000 + i) for i in range(simulations)]
    return {
        "truth": wanted,
        "mean": float(np.mean([one.ours.value for one in found])),
        "published": float(np.mean([one.published.low <= wanted <= one.published.high for one in found])),
        "ours": float(np.mean([one.ours.low <= wanted <= one.ours.high for one in found])),
    }
