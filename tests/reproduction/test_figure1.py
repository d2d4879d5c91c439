"""Figure 1's curves against Eq. 9."""

import pytest
import torch

from lightning_bnf.losses import BNF, NLLPLL
from lightning_bnf.reproduction.figure1 import equation_9, feedback_curves, largest_difference
from lightning_bnf.results.plots import plot_feedback


def test_curves_equal_eq9_for_both_labels() -> None:
    """BNF: pi (1 - ref) / ref below the reference, 1 - pi above it; NLL + PLL: 1 - pi everywhere."""
    curves = feedback_curves({"BNF": BNF(), "NLL + PLL": NLLPLL()}, reference=0.4, points=9)
    assert len(curves) == 2 * 2 * 9
    for row in curves.itertuples():
        pi = row.likelihood
        expected = pi * 0.6 / 0.4 if row.loss == "BNF" and pi < 0.4 else 1 - pi
        assert row.gradient == pytest.approx(expected, rel=1e-12)


def test_a_reference_outside_the_open_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reference must be in \(0, 1\), got 1\.0"):
        feedback_curves({"BNF": BNF()}, reference=1.0)


def test_the_figure_has_a_line_for_each_loss() -> None:
    curves = feedback_curves({"BNF": BNF(), "NLL + PLL": NLLPLL()}, points=9)
    labels = [line.get_label() for line in plot_feedback(curves, 0.4).axes[0].get_lines()]
    assert labels == ["BNF", "NLL + PLL", r"$\mathrm{ref}(y)$"]


def test_equation_9_by_hand() -> None:
    """ref 0.4: 0.2 * 0.6 / 0.4 = 0.3 below, 1 - 0.4 at, and 1 - 0.9 above it. NLL differs from it most at 0.1: by
    0.9 - 0.15."""
    found = equation_9(torch.tensor([0.2, 0.4, 0.9], dtype=torch.float64), 0.4)
    assert found.tolist() == pytest.approx([0.3, 0.6, 0.1])
    curves = feedback_curves({"BNF": BNF(), "NLL + PLL": NLLPLL()}, reference=0.4, points=9)
    assert largest_difference(curves, "BNF", 0.4) < 1e-12
    assert largest_difference(curves, "NLL + PLL", 0.4) == pytest.approx(0.75)
    with pytest.raises(ValueError, match=r"loss must be one of BNF, NLL .*, got 'DPO'"):
        largest_difference(curves, "DPO", 0.4)
