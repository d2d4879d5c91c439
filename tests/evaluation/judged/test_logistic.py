"""The fit against scikit-learn's, and where one side wins all."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lightning_bnf.evaluation.judged.logistic import logistic_fit

RNG = np.random.default_rng(0)
X, Y, WEIGHT = RNG.normal(size=(200, 3)), RNG.integers(0, 3, 200) / 2, RNG.integers(0, 4, 200).astype(float)


@pytest.mark.parametrize("l2", [0.0, 1.0, 30.0])
def test_equals_scikit_learns(l2: float) -> None:
    """Ties as half a win and half a loss."""
    strength = np.inf if l2 == 0 else 1 / l2
    model = LogisticRegression(C=strength, fit_intercept=False, tol=1e-10, solver="newton-cholesky")
    rows, labels = np.concatenate([X, X]), np.repeat([1, 0], 200)
    theirs = model.fit(rows, labels, sample_weight=np.concatenate([WEIGHT * Y, WEIGHT * (1 - Y)])).coef_[0]
    assert logistic_fit(X, Y, WEIGHT, l2) == pytest.approx(theirs, abs=1e-6)


def test_a_mean_is_found_in_closed_form() -> None:
    """Three wins of four: log 3."""
    found = logistic_fit(np.ones((4, 1)), np.array([1.0, 1, 1, 0]), np.ones(4))
    assert found == pytest.approx([np.log(3)], abs=1e-5)


def test_all_won_is_finite_and_nearly_certain() -> None:
    (found,) = logistic_fit(np.ones((4, 1)), np.ones(4), np.ones(4))
    assert 10 < found < 20


def test_a_feature_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="x must be finite numbers"):
        logistic_fit(np.array([[np.nan]]), np.ones(1), np.ones(1))
