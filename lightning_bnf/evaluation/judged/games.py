"""Games: a judge's verdicts on a model's answer beside the baseline's, as arrays that the statistics read."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from lightning_bnf.evaluation.statistics.intervals import Interval, wilson
from lightning_bnf.runtime.refusal import Refusal

STYLE = ("length", "headers", "lists", "bold")
"""What style counts of an answer: tokens (or characters, where the file says so), and Markdown."""
MUCH = 3
"""Battles that a verdict of "much better" counts for, in Arena-Hard's rules; a slight one counts for one."""


@dataclass(frozen=True)
class Games:
    """One entry a game. A question has one game or two, with the places of both answers swapped.

    question: (N,) ids
    model: (N,) names; the other side is the one baseline of all games
    first: (N,) whether the model's answer was shown first, as A
    verdict: (N,) 2, 1, 0, -1, -2: much better, better, as good, worse, much worse than the baseline; NaN: none
    style, base_style: (N, 4) of both answers, in the order of `STYLE`; NaN where it is not known
    """

    question: np.ndarray
    model: np.ndarray
    first: np.ndarray
    verdict: np.ndarray
    style: np.ndarray
    base_style: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.question)
        shapes = {field.name: getattr(self, field.name).shape for field in fields(self)}
        wanted = {name: (n, len(STYLE)) if name.endswith("style") else (n,) for name in shapes}
        if shapes != wanted:
            raise Refusal(f"games must be arrays of {wanted}, got {shapes}")
        if not (np.isnan(self.verdict) | np.isin(self.verdict, (-2, -1, 0, 1, 2))).all():
            raise Refusal("verdict must be 2, 1, 0, -1, -2 or NaN, got other numbers")

    def __len__(self) -> int:
        return len(self.question)

    def where(self, chosen: np.ndarray) -> Self:
        """The games of a mask (N,)."""
        return type(self)(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def judged(self) -> Self:
        """Those with a verdict."""
        return self.where(~np.isnan(self.verdict))

    @property
    def pool(self) -> list[str]:
        """The models' names, sorted."""
        return sorted(set(self.model.tolist()))

    @property
    def outcome(self) -> np.ndarray:
        """(N,) 1, 1/2, 0 of the model; NaN without a verdict."""
        return 0.5 + 0.5 * np.sign(self.verdict)

    @property
    def weight(self) -> np.ndarray:
        """(N,) battles that a game counts for: `MUCH`, 1, or 0 without a verdict."""
        return np.where(np.isnan(self.verdict), 0, np.where(np.abs(self.verdict) == 2, MUCH, 1))


def joined(parts: Sequence[Games]) -> Games:
    """The games of several models against the same baseline as one pool."""
    return Games(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Games)))


def draws_of_questions(question: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """How often each entry is in each draw of questions with replacement, a question's games and models together:
    (resamples, N)."""
    names, place = np.unique(question, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return counts[:, place]


def draws_of_battles(weight: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """How often each game's battles are in each draw of single battles with replacement, as Arena-Hard draws them:
    (resamples, N)."""
    rng = np.random.default_rng(seed)
    total = int(weight.sum())
    return rng.multinomial(total, weight / total, size=resamples) if total else np.zeros((resamples, len(weight)))


def interval_of(rate: float, drawn: np.ndarray, ends: tuple[float, float], n: int) -> Interval:
    """The quantiles of draws; Wilson's of n questions where a model has won, or lost, all, as draws are alike there."""
    if rate in (0.0, 1.0):
        return Interval(rate, *wilson(rate * n, n))
    low, high = np.nanquantile(drawn, ends)
    return Interval(rate, float(low), float(high))
