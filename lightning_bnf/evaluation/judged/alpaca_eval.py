"""AlpacaEval 2: the win rate of a weighted judge, and its length-controlled form.

Dubois et al. 2024, "Length-controlled AlpacaEval" (arXiv 2404.04475). A preference in [1, 2] is 1 + the judge's
probability that the model's answer is the better one; 1.5 where both are equal. Win rate = mean(preference - 1), with
the standard error of the mean. The length-controlled rate is that of a logistic regression without intercept,

    P(win) = sigmoid(a tanh(d / s) + b difficulty + c model)      d difference in characters, s its deviation (ddof 1)

with an L1 penalty by cross-validation over five groups of instructions, read at d = 0. Two "gamed" baselines of weight
0.1 each, on which the model's term is nil, hold a and b in place. They and the difficulties are the benchmark's file
`df_gamed.csv`; without it the fit is a tanh(d / s) + c, which is another number, and `rules` says so.

The published standard error of the length-controlled rate is that of its predictions, as if the fit were known: 0
without difficulties. The interval beside it draws instructions and fits each draw anew, without the penalty: under a
strong one, which small samples choose, every draw would give 50 exactly.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_bnf.evaluation.judged.logistic import logistic_fit
from lightning_bnf.evaluation.statistics.intervals import Interval
from lightning_bnf.runtime.refusal import Refusal

GAMED_WEIGHT, SPLITS = 0.2, 5
_Z = 1.959964
INSTALL = "pip install 'lightning_bnf[eval]'"


@dataclass(frozen=True)
class Gamed:
    """The benchmark's baselines with answers of other lengths, `df_gamed.csv`.

    index: (G,) instruction; difficulty: (G,) of it; length: (G,) difference over its deviation; win: (G,) in [0, 1]
    """

    index: np.ndarray
    difficulty: np.ndarray
    length: np.ndarray
    win: np.ndarray

    def of(self, index: np.ndarray) -> np.ndarray:
        """The difficulty of instructions (N,). Raises `Refusal` for one that is not there."""
        known = dict(zip(self.index.tolist(), self.difficulty.tolist(), strict=True))
        unknown = [one for one in index.tolist() if one not in known]
        if unknown:
            raise Refusal(f"index must be an instruction of the file of difficulties, got {unknown[0]}")
        return np.array([known[one] for one in index.tolist()])


@dataclass(frozen=True)
class Preferred:
    """n instructions with a preference, `missing` without; error: published standard error, in points like the rest."""

    n: int
    missing: int
    rate: Interval
    error: float
    rules: str


def win_rate(preference: np.ndarray) -> Preferred:
    """Of preferences (N,) in [1, 2], NaN where the judge named neither: these are counted and left out."""
    kept = _kept(preference) - 1
    rate, error = 100 * float(kept.mean()), 100 * float(kept.std(ddof=1) / np.sqrt(len(kept)))
    interval = Interval(rate, rate - _Z * error, rate + _Z * error)
    return Preferred(len(kept), len(preference) - len(kept), interval, error, "AlpacaEval 2, weighted win rate")


def length_controlled(
    preference: np.ndarray,
    length: np.ndarray,
    base_length: np.ndarray,
    index: np.ndarray | None = None,
    gamed: Gamed | None = None,
    seed: int = 0,
    resamples: int = 200,
) -> Preferred:
    """The win rate at equal lengths.

    Args:
        preference: (N,) as for `win_rate`. length, base_length: (N,) characters.
        index, gamed: each instruction's index (N,), and the benchmark's file; both or neither.
        seed, resamples: of the interval.
    """
    _kept(preference)
    difference = (base_length - length).astype(float)
    deviation = difference.std(ddof=1) or 1.0
    columns = [np.tanh(difference / deviation), np.ones(len(preference))]
    rules = "AlpacaEval 2, length-controlled, without the benchmark's difficulties"
    if gamed is not None and index is not None:
        columns.insert(1, gamed.of(index))
        rules = "AlpacaEval 2, length-controlled"
    known = ~np.isnan(preference)
    equal = np.column_stack([np.zeros(len(preference)), *columns[1:]])  # read at d = 0, also where none was preferred
    own = np.column_stack(columns)[known]
    held, won, weight = _held(gamed if len(columns) == 3 else None)
    x, y = np.concatenate([held, own]), np.concatenate([won, preference[known] - 1])
    weights = np.concatenate([weight, np.ones(len(own))])
    strength = _chosen_strength(x, y, weights)
    rates = 100 * _probability(_fit(x, y, weights, strength), equal)
    rng = np.random.default_rng(seed)
    drawn = []
    for counts in rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=resamples):
        b = logistic_fit(x, y, np.concatenate([weight, counts]))
        drawn.append(100 * float(_probability(b, equal).mean()))
    low, high = np.quantile(drawn, [0.025, 0.975])
    error = float(rates.std(ddof=1) / np.sqrt(len(rates)))
    interval = Interval(float(rates.mean()), float(low), float(high))
    return Preferred(int(known.sum()), int((~known).sum()), interval, error, rules)


def _held(gamed: Gamed | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if gamed is None:
        return np.empty((0, 2)), np.empty(0), np.empty(0)
    x = np.column_stack([np.tanh(gamed.length), gamed.difficulty, np.zeros(len(gamed.win))])
    return x, gamed.win, np.full(len(gamed.win), GAMED_WEIGHT / 2)


def _twice(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows once as won and once as lost, weighed by their share of each."""
    return np.concatenate([x, x]), np.repeat([1, 0], len(x)), np.concatenate([weight * y, weight * (1 - y)])


def _fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray, strength: float) -> Any:
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise Refusal(f"length_controlled must be run with scikit-learn, got none: {INSTALL}") from None
    model = LogisticRegression(l1_ratio=1, C=strength, solver="liblinear", fit_intercept=False, random_state=123)
    rows, label, share = _twice(x, y, weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the published fit ends after 100 rounds too
        return model.fit(rows, label, sample_weight=share).coef_[0]


def _chosen_strength(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """The C of ten whose mean log loss over five held-out groups is least; of equal ones the first."""
    from sklearn.model_selection import GroupKFold

    both = np.tile(np.arange(len(x)), 2)  # a row's two halves stay together
    losses = []
    grid = np.logspace(-4, 4, 10)
    for train, test in GroupKFold(n_splits=SPLITS).split(both, groups=both):
        rows, held = np.unique(both[train]), np.unique(both[test])
        line = []
        for strength in grid:
            p = np.clip(_probability(_fit(x[rows], y[rows], weight[rows], strength), x[held]), 1e-15, 1 - 1e-15)
            line.append(float(-(weight[held] * (y[held] * np.log(p) + (1 - y[held]) * np.log(1 - p))).mean()))
        losses.append(line)
    return float(grid[int(np.argmin(np.mean(losses, axis=0)))])


def _probability(coefficients: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-(x @ coefficients))))


def _kept(preference: np.ndarray) -> np.ndarray:
    kept = preference[~np.isnan(preference)]
    if len(kept) < 2 or not ((kept >= 1) & (kept <= 2)).all():
        raise Refusal("preference must be numbers from 1 to 2, two at least, or NaN, got others or fewer")
    return kept
