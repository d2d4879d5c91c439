"""WildBench's Elo: battles between all models' scores on the same task, updated one by one in random orders.

Of two models' scores on a task the higher wins if it is higher by 2 or more, else it is a tie; a tie too where their
answers' lengths differ by more than 1,500 characters. Empty answers take no part. The factor is 4, the start is 1000 or
as given; the mean over 128 orders, with the 2.5th and 97.5th percentile of orders.

Ratings depend on every model in the pool. The published percentiles say how much the order of battles matters, not
which tasks were drawn: `over_tasks` is that interval (95 %), a bootstrap over tasks with one order each.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lightning_bnf.evaluation.statistics.intervals import Interval
from lightning_bnf.runtime.refusal import Refusal

FACTOR, MARGIN, LONGEST, ORDERS, START = 4.0, 2.0, 1500, 128, 1000.0


@dataclass(frozen=True)
class Rating:
    """A model's Elo: the mean over orders with the published percentiles, and the interval over tasks."""

    model: str
    n: int
    published: Interval
    over_tasks: Interval


def elo(
    score: np.ndarray,
    length: np.ndarray,
    models: list[str],
    start: Mapping[str, float] | None = None,
    seed: int = 0,
    orders: int = ORDERS,
) -> list[Rating]:
    """Ratings of the pool.

    Args:
        score: (tasks, models) 1 to 10; NaN where there is none. length: the same, of answers in characters.
        models: their names. start: initial ratings by name; 1000 without one.
        seed: of orders and draws. orders: how many.
    """
    if score.shape != length.shape or score.ndim != 2 or score.shape[1] != len(models) or len(models) < 2:
        raise Refusal(f"score and length must be (tasks, models) of two models or more, got {score.shape}")
    battles = _battles(score, length)
    begin = np.array([(start or {}).get(name, START) for name in models])
    rng = np.random.default_rng(seed)
    n = len(battles)
    if not n:
        raise Refusal("score must hold a task that two models have answered, got none")
    mixed = _rounds(battles, rng.permuted(np.tile(np.arange(n), (orders, 1)), axis=1), begin)
    by_task = [np.flatnonzero(battles[:, 0] == task) for task in range(len(score))]
    drawn = []
    for _ in range(orders):
        picked = np.concatenate([by_task[task] for task in rng.integers(0, len(score), len(score))])
        drawn.append(rng.permutation(np.resize(picked, n)))  # as many battles in each draw
    tasks = _rounds(battles, np.stack(drawn), begin)
    return [
        Rating(name, int((~np.isnan(score[:, i])).sum()), _interval(mixed[:, i]), _interval(tasks[:, i], mixed[:, i]))
        for i, name in enumerate(models)
    ]


def _battles(score: np.ndarray, length: np.ndarray) -> np.ndarray:
    """(battles, 4): task, first model, second, outcome of the first."""
    found = []
    for i in range(score.shape[1]):
        for j in range(i + 1, score.shape[1]):
            difference = score[:, i] - score[:, j]
            outcome = np.where(np.abs(difference) >= MARGIN, 0.5 + 0.5 * np.sign(difference), 0.5)
            outcome[np.abs(length[:, i] - length[:, j]) > LONGEST] = 0.5
            met = np.flatnonzero(~np.isnan(difference) & (length[:, i] > 0) & (length[:, j] > 0))
            found.append(np.column_stack([met, np.full(len(met), i), np.full(len(met), j), outcome[met]]))
    return np.concatenate(found)


def _rounds(battles: np.ndarray, order: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Ratings (orders, models) after the battles in each order; all orders advance together."""
    rating = np.tile(begin, (len(order), 1))
    rows = np.arange(len(order))
    first, second, outcome = battles[:, 1].astype(int), battles[:, 2].astype(int), battles[:, 3]
    for step in order.T:  # (orders,)
        a, b = first[step], second[step]
        change = FACTOR * (outcome[step] - 1 / (1 + 10 ** ((rating[rows, b] - rating[rows, a]) / 400)))
        rating[rows, a] += change
        rating[rows, b] -= change
    return rating


def _interval(drawn: np.ndarray, whole: np.ndarray | None = None) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float((drawn if whole is None else whole).mean()), float(low), float(high))
