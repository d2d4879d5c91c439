"""How often a policy's completion beats the base's on the same prompt, by verifier score; also at equal lengths.

A comparison is won by the higher score; a tie counts half for each. A completion that was cut off scores 0.

Length-controlled: a logistic regression of the comparisons' outcomes w (1, 1/2, 0) on the difference of lengths,

    P(win) = sigmoid(a + b x)     x = tanh(d / s)     d = length - base length (tokens), s its standard deviation

read at x = 0, where both are equally long: sigmoid(a). This is AlpacaEval 2's estimator (Dubois et al. 2024, "Length-
controlled AlpacaEval") for one pair of models: its term for the models and its term for the length, tanh of the scaled
difference, which keeps a few very long completions from deciding the slope. Its third term, the difficulty of each
instruction, is left out: it is estimated from many models' comparisons, and there are two here. Its regularisation is
replaced by a stated one: b has a standard normal prior, which keeps the fit finite where length alone separates wins
from losses and is otherwise outweighed by some dozens of comparisons; a has none, so without differences in length
the rate is the plain one. Where no comparison is near equal lengths the rate is an extrapolation of the logistic curve.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from lightning_bnf.evaluation.pass_rates import Record, grouped
from lightning_bnf.evaluation.statistics.intervals import Interval
from lightning_bnf.runtime.refusal import Refusal

_STEPS, _ACCURACY, _BOUND = (
    50,
    1e-9,
    30.0,
)  # of Newton's method; |a| stays below the bound where all comparisons are won


@dataclass(frozen=True)
class Comparisons:
    """Outcomes on the same prompts.

    prompt: (N,) index of each comparison's prompt; win: (N,) 1, 0.5 or 0; length, base_length: (N,) tokens
    """

    prompt: np.ndarray
    win: np.ndarray
    length: np.ndarray
    base_length: np.ndarray


@dataclass(frozen=True)
class WinRate:
    """A group against the base: n comparisons, the shares won, tied and lost, the win rate (ties count half), the
    rate at equal lengths, and mean lengths in tokens."""

    group: str
    decoding: str
    n: int
    wins: float
    ties: float
    losses: float
    rate: Interval
    controlled: Interval
    length: float
    base_length: float


def comparisons(records: Sequence[Record], base: Sequence[Record]) -> Comparisons:
    """Each prompt's completion against the base's, both once each. Raises `Refusal` where prompts differ."""
    own, other = ({record.prompt_id: record for record in side} for side in (records, base))
    if not own or own.keys() != other.keys() or len(own) != len(records) or len(other) != len(base):
        raise Refusal("records and base must be one or more completions of the same prompts, once each, got others")
    return Comparisons(
        np.arange(len(own)),
        np.array([outcome(own[prompt], other[prompt]) for prompt in own]),
        np.array([own[prompt].length for prompt in own]),
        np.array([other[prompt].length for prompt in own]),
    )


def joined(parts: Sequence[Comparisons]) -> Comparisons:
    """Comparisons of several runs on the same prompts in the same order, as one: a prompt's stay together in draws."""
    names = [field.name for field in fields(Comparisons)]
    return Comparisons(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def outcome(record: Record, base: Record) -> float:
    """1 where the record's score is higher than the base's, 0.5 where they are equal, else 0."""
    return float(0.5 + 0.5 * np.sign(_score(record) - _score(base)))


def _score(record: Record) -> float:
    return record.score if record.finished else 0.0


def win_rate(fought: Comparisons, seed: int = 0, resamples: int = 2000) -> Interval:
    """The mean outcome, with a bootstrap interval (percentiles) over prompts, each drawn whole."""
    drawn = _draws(fought, seed, resamples)
    drawn = (drawn @ fought.win) / drawn.sum(axis=1)
    return _interval(float(fought.win.mean()), drawn)


def controlled_win_rate(fought: Comparisons, seed: int = 0, resamples: int = 2000) -> Interval:
    """The win rate at equal lengths (this file's docstring), with an interval like `win_rate`'s, of the same draws.

    The scale s of length differences is that of all comparisons in every draw.
    """
    difference = (fought.length - fought.base_length).astype(np.float64)
    x = np.tanh(difference / (difference.std() or 1.0))
    found = _at_equal_lengths(x, fought.win, np.ones((1, len(x))))[0]
    drawn = np.concatenate(
        [_at_equal_lengths(x, fought.win, some) for some in np.array_split(_draws(fought, seed, resamples), 20)]
    )
    return _interval(float(found), drawn)


def _at_equal_lengths(x: np.ndarray, win: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sigmoid(a) of the fits to the comparisons with each line of weights (R, N), by Newton's method: (R,)."""
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-(a[:, None] + b[:, None] * x)))  # (R, N)
        error, curve = weights * (win - p), weights * p * (1 - p)
        slope_a, slope_b = error.sum(1), error @ x - b  # - b: the prior's
        aa, ab, bb = curve.sum(1) + 1e-12, curve @ x, curve @ x**2 + 1.0
        determinant = aa * bb - ab**2
        step_a, step_b = (bb * slope_a - ab * slope_b) / determinant, (aa * slope_b - ab * slope_a) / determinant
        # a step of more than 2 on the logit scale overshoots: Newton's parabola is far from the curve there
        shrink = np.minimum(1.0, 2.0 / np.maximum(np.maximum(np.abs(step_a), np.abs(step_b)), 1e-300))
        a, b = np.clip(a + shrink * step_a, -_BOUND, _BOUND), b + shrink * step_b
        if (np.abs(shrink * step_a) < _ACCURACY).all() and (np.abs(shrink * step_b) < _ACCURACY).all():
            break
    return 1 / (1 + np.exp(-a))


def _draws(fought: Comparisons, seed: int, resamples: int) -> np.ndarray:
    """How often each comparison is in each draw of prompts with replacement: (resamples, N)."""
    prompts, place = np.unique(fought.prompt, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts)), size=resamples)
    return counts[:, place].astype(np.float64)


def _interval(value: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def win_rates(records: Iterable[Record], base: Iterable[Record], seed: int = 0, resamples: int = 2000) -> list[WinRate]:
    """Every group's win rate against the base, greedy and sampled, in the order of `pass_rates.pass_rates`.

    Both sides must hold the same prompts in the same groups, once each for each way of decoding; else ValueError.
    """
    ours, theirs = grouped(records), grouped(base)
    if list(ours) != list(theirs):
        raise Refusal(f"the groups must be the same on both sides, got {sorted(set(ours) ^ set(theirs))} on one only")
    found = []
    for (group, decoding), own in ours.items():
        fought = comparisons(own, theirs[group, decoding])
        found.append(
            WinRate(
                group,
                decoding,
                len(fought.win),
                wins=float(np.mean(fought.win == 1.0)),
                ties=float(np.mean(fought.win == 0.5)),
                losses=float(np.mean(fought.win == 0.0)),
                rate=win_rate(fought, seed, resamples),
                controlled=controlled_win_rate(fought, seed, resamples),
                length=float(fought.length.mean()),
                base_length=float(fought.base_length.mean()),
            )
        )
    return found
