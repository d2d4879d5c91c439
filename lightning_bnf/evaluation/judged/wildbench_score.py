"""WildBench's score: a judge's 1 to 10 for an answer on its own, and the weighted mean over groups of tasks.

Lin et al. 2024 (arXiv 2406.04770), version 2. Score = (mean - 5) x 2, printed times 10, so from -80 to 100. The task
macro is the mean of five groups' scores by fixed weights; a task counts once in each group of its tags. The paper's
"Score" is the task macro. Intervals (95 %) are bootstraps over tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_bnf.evaluation.statistics.intervals import Interval
from lightning_bnf.runtime.refusal import Refusal

WEIGHTS = {
    "Creative Tasks": 0.5,
    "Planning & Reasoning": 1.25,
    "Math & Data Analysis": 1.0,
    "Information/Advice seeking": 0.75,
    "Coding & Debugging": 1.25,
}
GROUP_OF = {
    "Information seeking": "Information/Advice seeking",
    "Advice seeking": "Information/Advice seeking",
    "Creative Writing": "Creative Tasks",
    "Editing": "Creative Tasks",
    "Brainstorming": "Creative Tasks",
    "Role playing": "Creative Tasks",
    "Others": "Creative Tasks",
    "Reasoning": "Planning & Reasoning",
    "Planning": "Planning & Reasoning",
    "Math": "Math & Data Analysis",
    "Data Analysis": "Math & Data Analysis",
    "Coding & Debugging": "Coding & Debugging",
}
"""A task's tag -> its group."""


@dataclass(frozen=True)
class Scored:
    """n tasks with a score, `missing` without one that can be read."""

    n: int
    missing: int
    value: Interval


def adjusted_score(score: np.ndarray, seed: int = 0, resamples: int = 2000) -> Scored:
    """Of scores (N,) in [1, 10], NaN where none could be read: these are counted and left out."""
    kept = _kept(score)
    drawn = _draws(len(kept), seed, resamples) @ kept / len(kept)
    low, high = np.quantile(_scaled(drawn), [0.025, 0.975])
    return Scored(len(kept), len(score) - len(kept), Interval(float(_scaled(kept.mean())), float(low), float(high)))


def task_macro(score: np.ndarray, tags: Sequence[Sequence[str]], seed: int = 0, resamples: int = 2000) -> Scored:
    """The weighted mean over groups; `tags` are each task's primary and secondary ones. A group without a task is left
    out, with its weight."""
    kept = _kept(score)
    inside = np.array([_groups(own) for own, value in zip(tags, score, strict=True) if not np.isnan(value)])  # (N, 5)
    weights = np.array([*WEIGHTS.values()])

    def macro(counts: np.ndarray) -> np.ndarray:
        members = counts @ inside  # (R, 5)
        means = (counts * kept) @ inside / np.maximum(members, 1)
        there = (members > 0) * weights
        return (_scaled(means) * there).sum(axis=1) / there.sum(axis=1)

    low, high = np.quantile(macro(_draws(len(kept), seed, resamples)), [0.025, 0.975])
    value = float(macro(np.ones((1, len(kept))))[0])
    return Scored(len(kept), len(score) - len(kept), Interval(value, float(low), float(high)))


def group_scores(score: np.ndarray, tags: Sequence[Sequence[str]]) -> dict[str, float]:
    """The score of each group that has a task."""
    kept = _kept(score)
    inside = np.array([_groups(own) for own, value in zip(tags, score, strict=True) if not np.isnan(value)])
    return {name: float(_scaled(kept[inside[:, i] > 0].mean())) for i, name in enumerate(WEIGHTS) if inside[:, i].any()}


def _kept(score: np.ndarray) -> np.ndarray:
    kept = score[~np.isnan(score)]
    if not len(kept) or not ((kept >= 1) & (kept <= 10)).all():
        raise Refusal("score must be numbers from 1 to 10, one at least, or NaN, got others or none")
    return kept


def _scaled(mean: np.ndarray) -> np.ndarray:
    return (mean - 5) * 2 * 10


def _groups(tags: Sequence[str]) -> list[float]:
    unknown = set(tags) - GROUP_OF.keys()
    if unknown or not tags:
        raise Refusal(f"tags must be one or more of {', '.join(GROUP_OF)}, got {', '.join(sorted(unknown)) or 'none'}")
    mine = {GROUP_OF[tag] for tag in tags}
    return [float(name in mine) for name in WEIGHTS]


def _draws(n: int, seed: int, resamples: int) -> np.ndarray:
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
