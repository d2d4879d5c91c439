"""Figures' looks: a method's own in every figure, different ones for all, apart for colour-blind eyes."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from lightning_bnf.results.style import CHOSEN, REJECTED, looks, save_figure, single

DEUTERANOPE = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
"""Of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1)."""


def seen(color: str) -> np.ndarray:
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return DEUTERANOPE @ linear


def test_a_method_has_one_look_however_it_is_written() -> None:
    assert looks(["SLiC-HF", "bnf"]) == {"SLiC-HF": looks(["slic_hf"])["slic_hf"], "bnf": looks(["BNF"])["BNF"]}
    assert looks(["nll_pll"])["nll_pll"] == looks(["NLL + PLL"])["NLL + PLL"]


def test_all_in_a_figure_look_different() -> None:
    methods = ["BNF", "DPO", "IPO", "KTO", "ORPO", "SimPO", "R-DPO", "SLiC-HF", "NLL+PLL", "SFT", "BNF-restore"]
    named = looks([*methods, "Base", "dpo_beta_0.1", "dpo_beta_0.5", "25%"])
    assert len({look.color for look in list(named.values())[:11]}) == 11
    assert len({look.marker for look in list(named.values())[:11]}) == 11
    assert len({(look.color, look.marker) for look in named.values()}) == len(named)


@pytest.mark.parametrize("pair", [*combinations(["BNF", "DPO", "NLL + PLL"], 2), (CHOSEN, REJECTED)], ids=str)
def test_what_is_most_compared_stays_apart_for_eyes_without_green(pair: tuple[str, str]) -> None:
    """Green and red of before lay 0.06 apart."""
    one, other = (name if name.startswith("#") else looks([name])[name].color for name in pair)
    assert np.linalg.norm(seen(one) - seen(other)) > 0.15
    assert np.linalg.norm(seen("#1b7837") - seen("#b2182b")) < 0.15


def test_a_figure_that_cannot_be_drawn_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "plots" / "a.png"
    figure, _ = single("Title", "x", "y")
    save_figure(figure, path)
    whole = path.read_bytes()
    assert whole.startswith(b"\x89PNG")
    figure.suptitle("$\\nocommand$")
    with pytest.raises(ValueError, match="nocommand"):
        save_figure(figure, path)
    assert path.read_bytes() == whole
    assert list(path.parent.iterdir()) == [path]
