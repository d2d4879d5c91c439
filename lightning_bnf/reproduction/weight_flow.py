"""What a loss's weight does to a logit in time: gradient flow of one token, and of an answer that shares its weights.

One dispreferred token with log-odds s, from s_0 (its policy probability is sigmoid(s); the other logits stay):

    BNF, power alpha     ds/dt = -min(1, exp(s - s_0))^alpha (1 - sigmoid(s))
    DPO                  ds/dt = -beta sigmoid(beta r) (1 - sigmoid(s)),    r = log sigmoid(s) - log sigmoid(s_0)

For a token that is unlikely from the start (1 - sigmoid(s) is 1) these are solved by

    BNF     s - s_0 = -log(1 + alpha t) / alpha        (alpha 0, NLL + PLL: -t)
    DPO     exp(-beta r) - beta r = 1 + beta^2 t       (late: r = -log(beta^2 t) / beta)

so that both go on without bound, by about a constant for each doubling of t: BNF as DPO with beta = alpha does.

The toy of near-duplicates: a token is right in the chosen answer and wrong in the rejected one, in contexts of cosine
`similarity`, over the same weights. Its log-odds move each other, a = (s_chosen, s_rejected):

    da/dt = [[1, similarity], [similarity, 1]] (w_c (1 - p_c), -w_r (1 - p_r))
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.integrate import solve_ivp
from scipy.special import expit, log_expit, logit

from lightning_bnf.runtime.arguments import NonNegativeFloat, OpenUnitInterval, PositiveFloat, ZeroToBelowOne, checked

TOLERANCE = 1e-9


@checked
def bnf_flow(times: np.ndarray, alpha: NonNegativeFloat = 1.0, start: OpenUnitInterval = 1e-6) -> np.ndarray:
    """s(t) - s_0 of a dispreferred token of probability `start`, by numerical integration: (times,)."""
    first = float(logit(start))

    def rate(_: float, s: np.ndarray) -> np.ndarray:
        return -np.exp(np.minimum(0.0, alpha * (s - first))) * expit(-s)

    return _solved(rate, [first], times)[0] - first


@checked
def dpo_flow(times: np.ndarray, beta: PositiveFloat, start: OpenUnitInterval = 1e-6) -> np.ndarray:
    """The same under DPO, whose margin is this token's log-ratio alone."""
    first = float(logit(start))

    def rate(_: float, s: np.ndarray) -> np.ndarray:
        ratio = log_expit(s) - log_expit(first)
        return -beta * expit(beta * ratio) * expit(-s)

    return _solved(rate, [first], times)[0] - first


def bnf_closed(times: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """-log(1 + alpha t) / alpha, and -t for alpha 0: (times,)."""
    return -times if alpha == 0 else -np.log1p(alpha * times) / alpha


def flows(
    times: np.ndarray, alphas: Sequence[float] = (0.5, 1, 2, 4), betas: Sequence[float] = (0.1, 0.5, 1)
) -> pd.DataFrame:
    """Tidy: columns kind (BNF or DPO), strength (alpha or beta), time, moved: s(t) - s_0."""
    found = [("BNF", alpha, bnf_flow(times, alpha)) for alpha in alphas]
    found += [("DPO", beta, dpo_flow(times, beta)) for beta in betas]
    return pd.concat(
        [pd.DataFrame({"kind": kind, "strength": one, "time": times, "moved": moved}) for kind, one, moved in found],
        ignore_index=True,
    )


def late_slope(times: np.ndarray, moved: np.ndarray) -> float:
    """Nats for each e-fold of time, at the end: -1 / alpha, and -1 / beta."""
    return float((moved[-1] - moved[-2]) / np.log(times[-1] / times[-2]))


WEIGHTS = ("NLL+PLL", "BNF", "BNF-restore")


@checked
def near_duplicates(
    times: np.ndarray,
    similarity: ZeroToBelowOne = 0.9,
    chosen: OpenUnitInterval = 0.6,
    rejected: OpenUnitInterval = 0.6,
) -> pd.DataFrame:
    """The toy, for each of `WEIGHTS`. Tidy: columns method, time, chosen and rejected (log-probs, in nats, minus those
    at the start), margin (their difference)."""
    first = logit([chosen, rejected])
    mixing = np.array([[1.0, similarity], [similarity, 1.0]])
    tables = []
    for method in WEIGHTS:

        def rate(_: float, s: np.ndarray, method: str = method) -> np.ndarray:
            weight = np.ones(2) if method == "NLL+PLL" else np.exp(np.minimum(0.0, s - first))
            if method == "BNF-restore":
                weight[0] = 1.0
            return mixing @ (np.array([1.0, -1.0]) * weight * expit(-s))

        moved = log_expit(_solved(rate, first.tolist(), times)) - log_expit(first)[:, None]
        columns = {"method": method, "time": times, "chosen": moved[0], "rejected": moved[1]}
        tables.append(pd.DataFrame(columns).assign(margin=moved[0] - moved[1]))
    return pd.concat(tables, ignore_index=True)


def _solved(rate: Callable[[float, np.ndarray], np.ndarray], first: Sequence[float], times: np.ndarray) -> np.ndarray:
    """(unknowns, times)."""
    span = (0.0, float(times[-1]))
    found = solve_ivp(rate, span, first, method="LSODA", t_eval=times, rtol=TOLERANCE, atol=TOLERANCE)
    return np.asarray(found.y)
