"""Arena-Hard as since 2025 (v2.0): the mean score of games, and its style-controlled form.

A question with a missing verdict is dropped whole. Score: the mean of battles (win 1, tie 1/2, loss 0; "much better"
is three), published as the mean of 100 bootstrap means with their 5th and 95th percentile. Style control: a
Bradley-Terry fit without penalty on

    length     (l - l_base) / (l + l_base)                               tokens
    headers, lists, bold     (d - d_base) / (d + d_base + 1)             d = count / (l + 1)

as z-scores (ddof 1) over all battles of the pool; the median of 100 bootstrap fits with the same percentiles. Like the
form of 2024 it is centred: read at the pool's mean style, so the pool is a part of the number.

The published percentiles draw single battles; `rate` draws questions whole. Both intervals are of 90 %: 5 to 95.
"""

import numpy as np
from scipy.special import expit

from lightning_bnf.evaluation.judged.arena_hard_2024 import Rated
from lightning_bnf.evaluation.judged.games import Games, draws_of_battles, draws_of_questions, interval_of
from lightning_bnf.evaluation.judged.logistic import logistic_fit
from lightning_bnf.evaluation.statistics.intervals import Interval

_BATTLE_DRAWS = 100
_ENDS = (0.05, 0.95)


def whole_rows(games: Games) -> Games:
    """Games of those (question, model) that miss no verdict."""
    _, row = np.unique(np.stack([games.question.astype(str), games.model.astype(str)]), axis=1, return_inverse=True)
    row = row.reshape(-1)
    bad = np.unique(row[np.isnan(games.verdict)])
    return games.where(~np.isin(row, bad))


def scores(games: Games, seed: int = 0, resamples: int = 2000) -> list[Rated]:
    """The score of every model of the pool, with 90 % intervals. Each model's battles are drawn for themselves."""
    kept, rows = whole_rows(games), []
    for name in kept.pool:
        own = kept.where(kept.model == name)
        battles = draws_of_battles(own.weight, seed, _BATTLE_DRAWS)
        drawn = battles @ own.outcome / battles.sum(axis=1)
        questions = draws_of_questions(own.question, seed, resamples) * own.weight
        mean = float(own.weight @ own.outcome / own.weight.sum())
        rows.append(_rated(games, name, mean, questions @ own.outcome / questions.sum(axis=1), drawn.mean(), drawn))
    return rows


def style_controlled(games: Games, seed: int = 0, resamples: int = 200) -> list[Rated]:
    """The style-controlled score of every model of the pool, with 90 % intervals."""
    kept = whole_rows(games)
    names = kept.pool
    chosen = np.stack([kept.model == name for name in names], axis=1).astype(float)
    x = np.column_stack([chosen, _z_scores(differences(kept.style, kept.base_style), kept.weight)])

    def rates(counts: np.ndarray) -> np.ndarray:
        return expit(logistic_fit(x, kept.outcome, counts)[: len(names)])

    found = rates(kept.weight)
    battles = np.stack([rates(row) for row in draws_of_battles(kept.weight, seed, _BATTLE_DRAWS)])
    questions = draws_of_questions(kept.question, seed, resamples) * kept.weight
    drawn = np.stack([rates(row) for row in questions])
    return [
        _rated(games, name, found[i], drawn[:, i], np.median(battles[:, i]), battles[:, i])
        for i, name in enumerate(names)
    ]


def differences(style: np.ndarray, base_style: np.ndarray) -> np.ndarray:
    """The four features of style (N, 4), before they are scaled; 0 where both answers are empty."""
    length, base = style[:, :1], base_style[:, :1]
    density, base_density = style[:, 1:] / (length + 1), base_style[:, 1:] / (base + 1)
    both = length + base
    of_length = np.where(both > 0, (length - base) / np.where(both > 0, both, 1), 0.0)
    return np.column_stack([of_length, (density - base_density) / (density + base_density + 1)])


def _z_scores(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Over battles, with ddof 1; a feature that never varies is 0."""
    mean = np.average(values, axis=0, weights=weight)
    spread = np.sqrt(weight @ (values - mean) ** 2 / max(weight.sum() - 1, 1))
    return (values - mean) / np.where(spread > 0, spread, 1.0)


def _rated(
    games: Games, name: str, value: float, questions: np.ndarray, published: float, battles: np.ndarray
) -> Rated:
    own = games.where(games.model == name)
    n = len(np.unique(whole_rows(own).question))
    under, over = np.quantile(battles, _ENDS)
    return Rated(
        name,
        n,
        int(np.isnan(own.verdict).sum()),
        interval_of(float(value), questions, _ENDS, n),
        Interval(float(published), float(under), float(over)),
    )
