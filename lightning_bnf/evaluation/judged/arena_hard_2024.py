"""Arena-Hard as in 2024 (v0.1, the paper's): the win rate of a Bradley-Terry fit, and its length-controlled form.

Li et al. 2024, "From crowdsourced data to high-quality benchmarks" (arXiv 2406.11939). A verdict of "much better" is
three battles, a slight one is one, a tie is half a win and half a loss. A logistic regression without intercept and
penalty on +-log 10 gives ratings:

    P(a beats b) = 1 / (1 + 10^((R_b - R_a) / 400))      R of the baseline is 1000
    WR = P(model beats baseline)

Every battle is against the one baseline, so that the fit has a closed form: WR is the weighted mean of a model's
battles. `length_controlled` adds (l_base - l) / (l_base + l + 1), as z-scores over all battles of the pool, and a
penalty (L2, C = 1): one joint fit, so that its numbers depend on the pool. The feature is centred, so that a model's
rating is read where the difference of lengths is *the pool's mean*, not nil: in a pool of one model it takes out
nothing of that model's mean advantage. `at_equal_lengths` reads the same fit where both are equally long.

The published intervals draw single battles with replacement, as if the three of a strong verdict and a question's two
games were independent; `Interval`s here draw questions whole, and are wider, as they must be (`simulated.py`).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from lightning_bnf.evaluation.judged.games import Games, draws_of_battles, draws_of_questions, interval_of
from lightning_bnf.evaluation.judged.logistic import logistic_fit
from lightning_bnf.evaluation.statistics.intervals import Interval

_CERTAIN = 1e-12  # a rate of 0 or 1 has no finite rating
_BATTLE_DRAWS = 100


@dataclass(frozen=True)
class Rated:
    """A model's win rate in [0, 1] with 95 % intervals: over questions, and the published one over battles."""

    model: str
    n: int
    missing: int
    rate: Interval
    published: Interval

    @property
    def rating(self) -> float:
        """On the Elo scale, the baseline being 1000."""
        return float(ratings(np.array(self.rate.value)))


def ratings(rate: np.ndarray) -> np.ndarray:
    """Win rates as ratings."""
    return 1000 + 400 / np.log(10) * logit(np.clip(rate, _CERTAIN, 1 - _CERTAIN))


def win_rates(games: Games, seed: int = 0, resamples: int = 2000) -> list[Rated]:
    """WR of every model of the pool, in its order. `n` counts questions with a verdict, `missing` games without."""
    kept = games.judged
    chosen = np.stack([kept.model == name for name in kept.pool], axis=1).astype(float)  # (N, M)
    battles = draws_of_battles(kept.weight, seed, _BATTLE_DRAWS)
    questions = draws_of_questions(kept.question, seed, resamples) * kept.weight

    def rates(counts: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a draw without a battle of a model has no rate
            return (counts * kept.outcome) @ chosen / (counts @ chosen)

    return _rated(games, rates(kept.weight[None])[0], rates(questions), rates(battles))


def length_controlled(games: Games, seed: int = 0, resamples: int = 200) -> list[Rated]:
    """LC of every model of the pool, as published: read at the pool's mean difference of lengths."""
    return _controlled(games, seed, resamples, centred=True)


def at_equal_lengths(games: Games, seed: int = 0, resamples: int = 200) -> list[Rated]:
    """The same fit, read where model and baseline are equally long."""
    return _controlled(games, seed, resamples, centred=False)


def _controlled(games: Games, seed: int, resamples: int, centred: bool) -> list[Rated]:
    kept = games.judged
    length, base = kept.style[:, 0], kept.base_style[:, 0]
    difference = (length - base) / (length + base + 1)
    mean = np.average(difference, weights=kept.weight)
    spread = np.sqrt(np.average((difference - mean) ** 2, weights=kept.weight)) or 1.0
    chosen = np.stack([kept.model == name for name in kept.pool], axis=1).astype(float)
    scale = np.log(10)
    x = np.column_stack([scale * chosen, np.full(len(kept), -scale), (difference - mean) / spread])
    read = 0.0 if centred else -mean / spread

    def rates(counts: np.ndarray) -> np.ndarray:
        # each battle stands twice in the published fit, which weighs against its penalty
        b = logistic_fit(x, kept.outcome, 2.0 * counts, l2=1.0)
        return expit(scale * (b[:-2] - b[-2]) + read * b[-1])

    found = rates(kept.weight)
    battles = np.stack([rates(row) for row in draws_of_battles(kept.weight, seed, _BATTLE_DRAWS)])
    questions = draws_of_questions(kept.question, seed, resamples) * kept.weight
    return _rated(games, found, np.stack([rates(row) for row in questions]), battles)


def _rated(games: Games, found: np.ndarray, questions: np.ndarray, battles: np.ndarray) -> list[Rated]:
    rows = []
    for i, name in enumerate(games.judged.pool):
        own = games.where(games.model == name)
        n = len(np.unique(own.judged.question))
        # quantiles of ratings, as published
        under, over = expit(np.log(10) / 400 * (np.nanquantile(ratings(battles[:, i]), [0.025, 0.975]) - 1000))
        rate = float(found[i])
        rows.append(
            Rated(
                name,
                n,
                int(np.isnan(own.verdict).sum()),
                interval_of(rate, questions[:, i], (0.025, 0.975), n),
                Interval(rate, float(under), float(over)),
            )
        )
    return rows
