"""The constraints that Table 2 prints, against numbers by hand and against a wrong formula."""

from dataclasses import replace

import pytest
import torch

from lightning_bnf.reproduction.table2 import check, constraint_curves, table2
from lightning_bnf.results.plots import plot_constraints


def test_the_printed_constraints_are_the_gradients() -> None:
    found = check(table2())
    assert list(found.index) == ["SLiC-HF", "DPO", "IPO", "SimPO"]
    assert (found["tokens"] > 400).all()
    assert found["largest difference"].max() < 1e-12


def test_a_wrong_constraint_is_seen() -> None:
    """SimPO's constraint as printed, without the factor beta / |y|, is not Eq. 3's."""
    simpo = table2()[-1]
    bare = replace(simpo, scale=lambda side: torch.ones_like(side.logps))
    assert check([bare])["largest difference"].max() > 0.1


def test_curves_by_hand() -> None:
    """At a gap of 0: SLiC-HF 1 (below delta), DPO 0.1 / 2, IPO 2 / (2 * 0.1) = 10, SimPO 2 s(0.5). At a gap of 10:
    SLiC-HF 0, DPO 0.1 s(-1), IPO 2 (5 - 10) = -10 (it pulls back), SimPO 2 s(0.5 - 20)."""
    curves = constraint_curves(table2(), torch.tensor([0.0, 10.0]))
    s = torch.sigmoid
    right = {
        "SLiC-HF": [1.0, 0.0],
        "DPO": [0.05, 0.1 * s(torch.tensor(-1.0)).item()],
        "IPO": [10.0, -10.0],
        "SimPO": [2 * s(torch.tensor(0.5)).item(), 2 * s(torch.tensor(-19.5)).item()],
    }
    for method, rows in curves.groupby("method"):
        assert rows["gradient"].tolist() == pytest.approx(right[method], rel=1e-6)
        assert rows["printed"].tolist() == pytest.approx(right[method], rel=1e-6)


def test_the_figure_has_a_panel_for_each_loss() -> None:
    curves = constraint_curves(table2(), torch.linspace(-5, 15, 9))
    panels = plot_constraints(curves).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["SLiC-HF", "DPO", "IPO", "SimPO"]
    assert all(len(axes.get_lines()) == 3 for axes in panels), "gradient, printed, zero"
