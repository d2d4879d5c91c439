"""Weighted logistic regression without intercept, to convergence: the fit below Arena-Hard's ratings."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from lightning_bnf.runtime.refusal import Refusal

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

    def slope(b: np.ndarray) -> np.ndarray:
        return x.T @ (weight * (expit(x @ b) - y)) + strength * b

    def curve(b: np.ndarray) -> np.ndarray:
        p = expit(x @ b)
        return (x * (weight * p * (1 - p))[:, None]).T @ x + strength * np.eye(x.shape[1])

    start = np.zeros(x.shape[1])
    found = minimize(loss, start, jac=slope, hess=curve, method="trust-exact", options={"gtol": 1e-9})
    return np.asarray(found.x)
