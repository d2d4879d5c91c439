"""Figures of shifts show every policy and response."""

import numpy as np
import pandas as pd
import pytest

from lightning_bnf.evaluation.shifts import MEASURES
from lightning_bnf.results.shift_plots import plot_shift_bins, plot_shifts


@pytest.mark.parametrize("count", [1, 4, 5])
def test_every_policy_has_its_own_panel_of_both_shifts(count: int) -> None:
    names = ["BNF", "DPO", "IPO", "SimPO", "KTO"][:count]
    rng = np.random.default_rng(0)
    tables = [pd.DataFrame(rng.random((6, len(MEASURES))), columns=[*MEASURES]).assign(policy=name) for name in names]
    axes = plot_shifts(pd.concat(tables)).axes
    assert [one.get_title(loc="left")[:3] for one in axes[:6]] == ["(a)", "(b)", "(d)", "(e)", "(f)", "(c)"]
    both = axes[5:]
    assert [one.get_title(loc="left").removeprefix("(c) ") for one in both] == names
    for name, table, panel in zip(names, tables, both, strict=True):
        others, own = panel.collections
        assert own.get_offsets().tolist() == table[["logp_shift", "logit_shift"]].to_numpy().tolist(), name
        assert len(others.get_offsets()) == 6 * (count - 1)


def test_bins_have_a_bar_for_each_policy() -> None:
    bins = pd.DataFrame(
        [(name, k, k - 1.0, float(k), 0.1) for name in ("BNF", "DPO") for k in range(1, 11)],
        columns=["policy", "bin", "above", "up_to", "share"],
    )
    (axes,) = plot_shift_bins(bins, "DPO").axes
    assert len(axes.patches) == 20
    assert "percentile bins of DPO" in axes.get_title(loc="left")
