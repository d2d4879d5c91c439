"""What a judge does beside judging: it prefers a place, contradicts itself when places are swapped, likes length."""

from dataclasses import dataclass

import numpy as np

from lightning_bnf.evaluation.judged.games import Games, draws_of_questions
from lightning_bnf.evaluation.statistics.intervals import Interval


@dataclass(frozen=True)
class Biases:
    """Shares in [0, 1] with 95 % intervals over questions; None where there is nothing to tell them from.

    first_wins: how often the answer shown first wins, a tie half: 1/2 without a position bias, whoever is better, as
        each pair is shown in both orders
    agreement: of pairs shown in both orders, how often both verdicts name the same winner, or a tie
    longer_wins: of games that are no tie, how often the longer answer wins; better answers may be longer, so that more
        than 1/2 proves no bias
    """

    first_wins: Interval | None
    agreement: Interval | None
    longer_wins: Interval | None


def biases(games: Games, seed: int = 0, resamples: int = 2000) -> Biases:
    """Of a judge's games; those without a verdict are left out."""
    kept = games.judged
    pair = np.array([f"{question}\0{model}" for question, model in zip(kept.question, kept.model, strict=True)])
    names, place = np.unique(pair, return_inverse=True)
    sides = np.zeros((len(names), 2))
    sides[place, kept.first.astype(int)] += 1
    both = (sides == 1).all(axis=1)[place]  # shown once in each order
    won_first = np.where(kept.first, kept.outcome, 1 - kept.outcome)
    first = kept.where(both)
    order = np.lexsort((kept.first[both], place[both]))
    signs = np.sign(first.verdict[order]).reshape(-1, 2)
    same = (signs[:, 0] == signs[:, 1]).astype(float)
    longer = np.sign(kept.style[:, 0] - kept.base_style[:, 0])
    decided = (np.sign(kept.verdict) != 0) & ~np.isnan(longer) & (longer != 0)
    by_length = (np.sign(kept.verdict) == longer).astype(float)
    return Biases(
        _mean(won_first[both], kept.question[both], seed, resamples),
        _mean(same, first.question[order][::2], seed, resamples),
        _mean(by_length[decided], kept.question[decided], seed, resamples),
    )


def _mean(values: np.ndarray, question: np.ndarray, seed: int, resamples: int) -> Interval | None:
    if not len(values):
        return None
    counts = draws_of_questions(question, seed, resamples)
    low, high = np.quantile(counts @ values / counts.sum(axis=1), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))
