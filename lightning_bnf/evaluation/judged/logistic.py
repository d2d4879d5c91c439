"""Weighted logistic regression without intercept, to convergence: the fit below Arena-Hard's ratings."""

import numpy as np
from scipy.special import expit

from lightning_bnf.runtime.refusal import Refusal

_STEPS, _ACCURACY = 100, 1e-12  # of Newton's method; scipy's, with its checks, takes ten times as long
SEPARATED = 1e-6
"""L2 strength that keeps a fit without a penalty finite where a model has won or lost every battle: it moves a
probability by less than 1e-6 otherwise."""


def logistic_fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray, l2: float = 0.0) -> np.ndarray:
    """The coefficients (K,) that minimise the weighted log loss + l2/2 |coefficients|^2.

    Args:
        x: (N, K) features. y: (N,) outcomes in [0, 1]; a tie is 1/2. weight: (N,) >= 0.
        l2: strength of the penalty, scikit-learn's 1/C.

    Raises `Refusal` where a feature is not finite.
    """
    if not np.isfinite(x).all():
        raise Refusal("x must be finite numbers, got some that are not")
    strength = max(l2, SEPARATED)

    def loss(b: np.ndarray) -> float:
        s = x @ b
        return float(weight @ (np.logaddexp(0, s) - y * s) + strength / 2 * b @ b)

    b = np.zeros(x.shape[1])
    value = loss(b)
    for _ in range(_STEPS):
        p = expit(x @ b)
        slope = x.T @ (weight * (p - y)) + strength * b
        curve = (x * (weight * p * (1 - p))[:, None]).T @ x + strength * np.eye(len(b))
        step = np.linalg.solve(curve, slope)
        decrease, size = float(slope @ step), 1.0
        if decrease < _ACCURACY:
            break
        while (new := loss(b - size * step)) > value - 1e-4 * size * decrease and size > 1e-6:
            size /= 2  # far from the minimum the parabola overshoots
        b, value = b - size * step, new
    return b
